"""From what a scanner or an archive gives to aligned, brain-extracted, scaled scans with their mirrored partner."""

from .align import AlignToRAS, AlignToRASd, ReadScand
from .atlas import AtlasRegionsd, atlas_regions, region_names
from .bias import CorrectBiasd
from .brain import BrainExtraction, BrainExtractiond
from .cohort import prepare_cohort, prepare_subject
from .coregister import rigid_registration
from .displacement import template_displacement
from .field_of_view import FieldOfViewd, depth_in_field_of_view
from .masks import LesionMaskOfFiled, lesion_mask
from .modality import GuessModalityd, WindowCTd, guess_modality
from .sources import Scan, find_subjects
from .template import place_template
from .tissues import LabelTissuesd, tissue_labels

__all__ = [
    "AlignToRAS",
    "AlignToRASd",
    "AtlasRegionsd",
    "BrainExtraction",
    "BrainExtractiond",
    "CorrectBiasd",
    "FieldOfViewd",
    "GuessModalityd",
    "LabelTissuesd",
    "LesionMaskOfFiled",
    "ReadScand",
    "Scan",
    "WindowCTd",
    "atlas_regions",
    "depth_in_field_of_view",
    "find_subjects",
    "guess_modality",
    "lesion_mask",
    "place_template",
    "prepare_cohort",
    "prepare_subject",
    "region_names",
    "rigid_registration",
    "template_displacement",
    "tissue_labels",
]
