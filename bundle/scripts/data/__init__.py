"""Subjects: datalists, the sample subject, reading, and generated cohorts."""

from .choose import RandChooseScand
from .cohort import as_new_subject, write_cohort
from .datalist import find_scans, find_splits, load_datalist
from .lesions import register_lesions
from .packed import PackedSubjects, packed_subjects, write_packed
from .reading import BrainMaskd, CropToBraind, ReadVolumesd
from .sample_subject import write_sample_subject
from .study import write_study
from .survey import ScanCache, SubjectCache, Survey

__all__ = [
    "BrainMaskd",
    "CropToBraind",
    "PackedSubjects",
    "RandChooseScand",
    "ReadVolumesd",
    "ScanCache",
    "SubjectCache",
    "Survey",
    "as_new_subject",
    "find_scans",
    "find_splits",
    "load_datalist",
    "packed_subjects",
    "register_lesions",
    "write_cohort",
    "write_packed",
    "write_sample_subject",
    "write_study",
]
