"""Use a part of one config of the bundle in another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

__all__ = ["from_config"]


def from_config(file: str, part: str, overrides: Mapping[str, Any]) -> Any:
    """Resolve an id of another config file in ``bundle/configs``.

    Does what MONAI's ``%file::id`` macro does, but finds the file from any working directory, keeps the references
    inside it, and takes overrides.

    Args:
        file: name of the file in ``bundle/configs``.
        part: id to resolve.
        overrides: top-level values of that file to replace.
    """
    parser = ConfigParser()
    parser.read_config(str(Path(__file__).parents[1] / "configs" / file))
    parser.update(dict(overrides))
    return parser.get_parsed_content(part)
