"""Everything right of the seam: what is made of a raw score, the same for every method. Knows no method."""

from .change import CHANGES, Change, ChangeScore, changed_parts
from .comparison import Comparison, check_splits, write_scores
from .errors import COLUMNS, RegionErrors, psnr_in_lesion, region_errors
from .frontier import Frontier
from .gate import HealthyGate, findings, gate_summary
from .handler import CaseHandler
from .judgement import Judgement
from .lesions import mask_metrics
from .likeness import likeness, tissue_classes
from .postprocess import ErodeScore, LesionMask, LesionMaskd, PostProcessing, PostProcessingd, SmoothScore
from .session import Look, SessionScore, Together, sessions_of
from .statistics import bootstrap_interval, holm, paired_tests
from .table import ErrorTable
from .thresholds import (
    Conformal,
    DiseasedValidation,
    Fixed,
    HealthyPercentile,
    Otsu,
    Record,
    keep_worst,
    lowest_limit,
    split_conformal,
)
from .truth import check_truth, true_lesion
from .voxels import count_voxels, slice_metrics, slice_scores, voxel_metrics

__all__ = [
    "CHANGES",
    "COLUMNS",
    "CaseHandler",
    "Change",
    "ChangeScore",
    "Comparison",
    "Conformal",
    "DiseasedValidation",
    "ErodeScore",
    "ErrorTable",
    "Fixed",
    "Frontier",
    "HealthyGate",
    "HealthyPercentile",
    "Judgement",
    "LesionMask",
    "LesionMaskd",
    "Look",
    "Otsu",
    "PostProcessing",
    "PostProcessingd",
    "Record",
    "RegionErrors",
    "SessionScore",
    "SmoothScore",
    "Together",
    "bootstrap_interval",
    "changed_parts",
    "check_splits",
    "check_truth",
    "count_voxels",
    "findings",
    "gate_summary",
    "holm",
    "keep_worst",
    "likeness",
    "lowest_limit",
    "mask_metrics",
    "paired_tests",
    "psnr_in_lesion",
    "region_errors",
    "sessions_of",
    "slice_metrics",
    "slice_scores",
    "split_conformal",
    "tissue_classes",
    "true_lesion",
    "voxel_metrics",
    "write_scores",
]
