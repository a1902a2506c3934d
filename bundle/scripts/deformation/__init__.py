"""Random anatomy: one deformation for everything of a subject, ventricles and lesions that take up room, and left-right flips
that know the labels."""

from .deform import RandDeformation, RandDeformationd
from .expansion import RandExpansion, RandExpansiond, RandSulcid, RandVentriclesd, expansion_field
from .flip import RandLateralFlip, RandLateralFlipd

__all__ = [
    "RandDeformation",
    "RandDeformationd",
    "RandExpansion",
    "RandExpansiond",
    "RandLateralFlip",
    "RandLateralFlipd",
    "RandSulcid",
    "RandVentriclesd",
    "expansion_field",
]
