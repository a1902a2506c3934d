"""Anomaly scores, lesion masks and the errors of a reconstruction."""

from .baselines import BASELINES, BaselineScoresd, equalized_intensity
from .contrast import MatchContrast, MatchContrastd, to_scale_of
from .metrics import COLUMNS, LESION_THRESHOLD, RegionErrors, detection_quality, psnr_in_lesion, region_errors
from .score import AnomalyScored, LesionMask, LesionMaskd, anomaly_score
from .table import ErrorTable
from .usual_error import usual_error

__all__ = [
    "BASELINES",
    "COLUMNS",
    "LESION_THRESHOLD",
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
    "psnr_in_lesion",
    "region_errors",
    "to_scale_of",
    "usual_error",
]
