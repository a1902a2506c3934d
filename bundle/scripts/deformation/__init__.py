"""Random anatomy: one deformation for everything of a subject, and left-right flips that know the labels."""

from .deform import RandDeformation, RandDeformationd
from .flip import RandLateralFlip, RandLateralFlipd

__all__ = ["RandDeformation", "RandDeformationd", "RandLateralFlip", "RandLateralFlipd"]
