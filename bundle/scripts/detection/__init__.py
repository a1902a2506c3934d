"""Anomaly scores, lesion masks and the errors of a reconstruction."""

from .baselines import BASELINES, BaselineScoresd, equalized_intensity
from .contrast import MatchContrast, MatchContrastd, to_scale_of
from .metrics import COLUMNS, RegionErrors, detection_quality, region_errors
from .score import AnomalyScored, LesionMask, LesionMaskd, anomaly_score
from .table import ErrorTable

__all__ = [
    "BASELINES",
    "COLUMNS",
    "AnomalyScored",
    "BaselineScoresd",
    "ErrorTable",
    "LesionMask",
    "LesionMaskd",
    "MatchContrast",
    "MatchContrastd",
    "RegionErrors",
    "anomaly_score",
    "detection_quality",
    "equalized_intensity",
    "region_errors",
    "to_scale_of",
]
