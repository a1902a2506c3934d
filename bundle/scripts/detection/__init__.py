"""Anomaly scores, lesion masks and the errors of a reconstruction."""

from .metrics import COLUMNS, RegionErrors, region_errors
from .score import AnomalyScored, LesionMask, LesionMaskd, anomaly_score
from .table import ErrorTable

__all__ = [
    "COLUMNS",
    "AnomalyScored",
    "ErrorTable",
    "LesionMask",
    "LesionMaskd",
    "RegionErrors",
    "anomaly_score",
    "region_errors",
]
