"""Anomaly scores, lesion masks and the errors of a reconstruction."""

from .metrics import COLUMNS, RegionErrors, region_errors
from .score import AnomalyScored, LesionMask, LesionMaskd, anomaly_score

__all__ = [
    "COLUMNS",
    "AnomalyScored",
    "LesionMask",
    "LesionMaskd",
    "RegionErrors",
    "anomaly_score",
    "region_errors",
]
