"""Anomaly scores, lesion masks and the errors of a reconstruction."""

from .contrast import MatchContrast, MatchContrastd
from .metrics import COLUMNS, RegionErrors, region_errors
from .score import AnomalyScored, LesionMask, LesionMaskd, anomaly_score
from .table import ErrorTable

__all__ = [
    "COLUMNS",
    "AnomalyScored",
    "ErrorTable",
    "LesionMask",
    "LesionMaskd",
    "MatchContrast",
    "MatchContrastd",
    "RegionErrors",
    "anomaly_score",
    "region_errors",
]
