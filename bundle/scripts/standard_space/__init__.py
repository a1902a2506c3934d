"""Scans, their healthy T1w and their lesions in the space of a template (MNI)."""

from .normalization import Normalization, region_loads
from .registration import TemplateMaps, register_to_template
from .template import TEMPLATES, load_template

__all__ = ["TEMPLATES", "Normalization", "TemplateMaps", "load_template", "region_loads", "register_to_template"]
