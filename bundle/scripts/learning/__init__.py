"""What training needs beyond MONAI and Ignite: losses, numbered draws, mixed precision on CPU, exact checkpoints."""

from .attention import LesionAttention, LesionAttentiond
from .average import AverageWeights
from .batch import PrepareSample
from .checkpoint import BestWeights, TrainingCheckpoint, load_weights, read_weights, save_atomically
from .diffusion import GaussianNoise, NoisePrepareBatch, PartialDiffusionInferer, PerlinNoise
from .disentangled import PrepareContrasts, PrepareEdges, PreparePair, Representation, RepresentationLoss
from .draws import DrawDataset, DrawSampler, Stream
from .further import FurtherNetworks
from .inferer import MixedPrecisionInferer
from .losses import ContrastLoss, ReconstructionLoss, UNALoss
from .progress import LossProgressBar
from .schedule import TrainingSchedule
from .slice_flow import (
    FlowLikelihoods,
    FlowLoss,
    RandFeatureVectorsd,
    SliceFeaturesd,
    feature_codes,
    prepare_vectors,
)
from .truth import UnknownTruthd
from .variational import ElboGradientInferer, ElboLoss, SamplingInferer

__all__ = [
    "AverageWeights",
    "BestWeights",
    "ContrastLoss",
    "DrawDataset",
    "DrawSampler",
    "ElboGradientInferer",
    "ElboLoss",
    "FlowLikelihoods",
    "FlowLoss",
    "FurtherNetworks",
    "GaussianNoise",
    "LesionAttention",
    "LesionAttentiond",
    "LossProgressBar",
    "MixedPrecisionInferer",
    "NoisePrepareBatch",
    "PartialDiffusionInferer",
    "PerlinNoise",
    "PrepareContrasts",
    "PrepareEdges",
    "PreparePair",
    "PrepareSample",
    "RandFeatureVectorsd",
    "ReconstructionLoss",
    "Representation",
    "RepresentationLoss",
    "SamplingInferer",
    "SliceFeaturesd",
    "Stream",
    "TrainingCheckpoint",
    "TrainingSchedule",
    "UNALoss",
    "UnknownTruthd",
    "feature_codes",
    "load_weights",
    "prepare_vectors",
    "read_weights",
    "save_atomically",
]
