"""What training needs beyond MONAI and Ignite: losses, numbered draws, mixed precision on CPU, exact checkpoints."""

from .attention import LesionAttention, LesionAttentiond
from .batch import PrepareSample
from .checkpoint import BestWeights, TrainingCheckpoint, load_weights
from .draws import DrawDataset, DrawSampler, Stream
from .inferer import MixedPrecisionInferer
from .losses import ContrastLoss, ReconstructionLoss, UNALoss
from .progress import LossProgressBar

__all__ = [
    "BestWeights",
    "ContrastLoss",
    "DrawDataset",
    "DrawSampler",
    "LesionAttention",
    "LesionAttentiond",
    "LossProgressBar",
    "MixedPrecisionInferer",
    "PrepareSample",
    "ReconstructionLoss",
    "Stream",
    "TrainingCheckpoint",
    "UNALoss",
    "load_weights",
]
