"""From a scan and what it would be without disease to a raw score."""

from .calibrated import AnomalyScored, Calibration, difference, load_calibration
from .contrast import MatchContrast, MatchContrastd
from .filling import FillLesion, FillLesiond
from .measures import Absolute, Dissimilarity, Fusion, Mahalanobis, Perceptual, Product, Residuald, Squared
from .usual_error import UsualError, scan_error

__all__ = [
    "Absolute",
    "AnomalyScored",
    "Calibration",
    "Dissimilarity",
    "FillLesion",
    "FillLesiond",
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
    "load_calibration",
    "scan_error",
]
