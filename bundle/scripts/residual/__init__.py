"""From a scan and what it would be without disease to a raw score."""

from .calibrated import AnomalyScored, Calibration, difference, load_calibration
from .contrast import MatchContrast, MatchContrastd
from .filling import FillLesion, FillLesiond
from .fine_blend import FineBlend, FineBlendd
from .measures import Absolute, Dissimilarity, Fusion, Mahalanobis, Perceptual, Product, Residuald, Squared
from .symmetric import extreme_of_other_side
from .usual_error import UsualError, scan_error

__all__ = [
    "Absolute",
    "AnomalyScored",
    "Calibration",
    "Dissimilarity",
    "FillLesion",
    "FillLesiond",
    "FineBlend",
    "FineBlendd",
    "Fusion",
    "Mahalanobis",
    "MatchContrast",
    "MatchContrastd",
    "Perceptual",
    "Product",
    "Residuald",
    "Squared",
    "UsualError",
    "difference",
    "extreme_of_other_side",
    "load_calibration",
    "scan_error",
]
