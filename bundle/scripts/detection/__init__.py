"""Anomaly scores, lesion masks and the errors of a reconstruction."""

from .baselines import BASELINES, BaselineScoresd, equalized_intensity
from .contrast import MatchContrast, MatchContrastd, to_scale_of
from .filling import FillLesion, FillLesiond
from .metrics import COLUMNS, LESION_THRESHOLD, RegionErrors, detection_quality, psnr_in_lesion, region_errors
from .score import (
    AnomalyScored,
    Calibration,
    LesionMask,
    LesionMaskd,
    SmoothScore,
    SmoothScored,
    difference,
    load_calibration,
)
from .table import ErrorTable
from .usual_error import UsualError, scan_error

__all__ = [
    "BASELINES",
    "COLUMNS",
    "LESION_THRESHOLD",
    "AnomalyScored",
    "BaselineScoresd",
    "Calibration",
    "ErrorTable",
    "FillLesion",
    "FillLesiond",
    "LesionMask",
    "LesionMaskd",
    "MatchContrast",
    "MatchContrastd",
    "RegionErrors",
    "SmoothScore",
    "SmoothScored",
    "UsualError",
    "detection_quality",
    "difference",
    "equalized_intensity",
    "load_calibration",
    "psnr_in_lesion",
    "region_errors",
    "scan_error",
    "to_scale_of",
]
