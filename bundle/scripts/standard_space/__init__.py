"""Scans, their healthy T1w and their lesions in the space of a template (MNI)."""

from .registration import TemplateMaps, register_to_template
from .template import TEMPLATES, load_template

__all__ = ["TEMPLATES", "TemplateMaps", "load_template", "register_to_template"]
