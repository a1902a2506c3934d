"""Random anatomy: one deformation for everything of a subject, ventricles and lesions that take up room, and left-right flips
that know the labels."""

from .deform import RandDeformation, RandDeformationd
from .expansion import RandExpansion, RandExpansiond, RandVentriclesd, expansion_field
from .flip import RandLateralFlip, RandLateralFlipd

__all__ = [
    "RandDeformation",
    "RandDeformationd",
    "RandExpansion",
    "RandExpansiond",
    "RandLateralFlip",
    "RandLateralFlipd",
    "RandVentriclesd",
    "expansion_field",
]
