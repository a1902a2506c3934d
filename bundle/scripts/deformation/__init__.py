"""Random anatomy: one deformation for everything of a subject, ventricles and lesions that take up room, and left-right flips
that know the labels."""

from .deform import RandDeformation, RandDeformationd
from .expansion import RandExpansion, RandMassEffectd, RandVentriclesd, expansion_field
from .flip import RandLateralFlip, RandLateralFlipd

__all__ = [
    "RandDeformation",
    "RandDeformationd",
    "RandExpansion",
    "RandLateralFlip",
    "RandLateralFlipd",
    "RandMassEffectd",
    "RandVentriclesd",
    "expansion_field",
]
