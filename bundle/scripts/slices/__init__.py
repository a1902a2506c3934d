"""Volumes as slices."""

from .slicer import AxialSlices, WholeVolume

__all__ = ["AxialSlices", "WholeVolume"]
