"""Networks that MONAI does not have."""

from .adversarial import CodedGenerator, CriticLoss, EncoderLoss
from .blending import BlendingUNet
from .extractor import FeatureExtractor
from .student import StudentTeacher

__all__ = ["BlendingUNet", "CodedGenerator", "CriticLoss", "EncoderLoss", "FeatureExtractor", "StudentTeacher"]
