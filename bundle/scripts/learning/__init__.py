"""What training needs beyond MONAI and Ignite: losses, numbered draws, mixed precision on CPU, exact checkpoints."""

from .attention import LesionAttention, LesionAttentiond
from .batch import PrepareSample
from .checkpoint import BestWeights, TrainingCheckpoint, load_weights, read_weights, save_atomically
from .diffusion import GaussianNoise, NoisePrepareBatch, PartialDiffusionInferer, PerlinNoise
from .draws import DrawDataset, DrawSampler, Stream
from .inferer import MixedPrecisionInferer
from .losses import ContrastLoss, ReconstructionLoss, UNALoss
from .progress import LossProgressBar
from .variational import ElboGradientInferer, ElboLoss, SamplingInferer

__all__ = [
    "BestWeights",
    "ContrastLoss",
    "DrawDataset",
    "DrawSampler",
    "ElboGradientInferer",
    "ElboLoss",
    "GaussianNoise",
    "LesionAttention",
    "LesionAttentiond",
    "LossProgressBar",
    "MixedPrecisionInferer",
    "NoisePrepareBatch",
    "PartialDiffusionInferer",
    "PerlinNoise",
    "PrepareSample",
    "ReconstructionLoss",
    "SamplingInferer",
    "Stream",
    "TrainingCheckpoint",
    "UNALoss",
    "load_weights",
    "read_weights",
    "save_atomically",
]
