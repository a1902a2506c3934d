"""Left of the seam: methods, each a config of ``configs/methods`` and, where it is new, a module here."""

from .features import PatchCore, coreset
from .guest import Guest, MethodScored, SideBySide, guests, train_method
from .intensity import Contralateral, GaussianAtlas, IntensityThreshold, equalized_intensity
from .method import GIVEN, Method
from .reconstruction import Reconstruction, ScoreMap
from .slice_flow import SliceFlow
from .una_calibration import ConformalLimit

__all__ = [
    "GIVEN",
    "ConformalLimit",
    "Contralateral",
    "GaussianAtlas",
    "Guest",
    "IntensityThreshold",
    "Method",
    "MethodScored",
    "PatchCore",
    "Reconstruction",
    "ScoreMap",
    "SideBySide",
    "SliceFlow",
    "coreset",
    "equalized_intensity",
    "guests",
    "train_method",
]
