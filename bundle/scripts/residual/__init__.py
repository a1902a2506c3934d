"""From a scan and what it would be without disease to a raw score."""

from .connected import connected_score
from .contrast import MatchContrast, MatchContrastd
from .doubt import doubt
from .filling import FillLesion, FillLesiond
from .fine_detail import FineDetail, FineDetaild
from .measures import Absolute, Dissimilarity, Fusion, Mahalanobis, Perceptual, Product, Residuald, Squared
from .scan_error import scan_error
from .score import AnomalyScored, Calibration, difference, load_calibration

__all__ = [
    "Absolute",
    "AnomalyScored",
    "Calibration",
    "Dissimilarity",
    "FillLesion",
    "FillLesiond",
    "FineDetail",
    "FineDetaild",
    "Fusion",
    "Mahalanobis",
    "MatchContrast",
    "MatchContrastd",
    "Perceptual",
    "Product",
    "Residuald",
    "Squared",
    "connected_score",
    "difference",
    "doubt",
    "load_calibration",
    "scan_error",
]
