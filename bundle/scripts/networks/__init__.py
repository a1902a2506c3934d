"""Networks that MONAI does not have."""

from .adversarial import CodedGenerator, CriticLoss, EncoderLoss
from .blending import BlendingUNet
from .disentangled import (
    AnatomyEncoder,
    Combiner,
    DisentangledAnatomy,
    ModalityVector,
    canny_edges,
    straight_through,
)
from .extractor import FeatureExtractor
from .slice_flow import ConditionalFlow, EncoderDecoder, LocalFeatures, SliceFeatures, position_codes
from .student import StudentTeacher

__all__ = [
    "AnatomyEncoder",
    "BlendingUNet",
    "CodedGenerator",
    "Combiner",
    "ConditionalFlow",
    "CriticLoss",
    "DisentangledAnatomy",
    "EncoderDecoder",
    "EncoderLoss",
    "FeatureExtractor",
    "LocalFeatures",
    "ModalityVector",
    "SliceFeatures",
    "StudentTeacher",
    "canny_edges",
    "position_codes",
    "straight_through",
]
