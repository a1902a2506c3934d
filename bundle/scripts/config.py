"""Configs of the bundle as one reads them from another, from any working directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .errors import InputError

__all__ = ["CONFIGS", "from_config", "method_files", "method_names", "parse"]

CONFIGS = Path(__file__).parents[1] / "configs"


def parse(files: Sequence[str], overrides: Mapping[str, Any]) -> ConfigParser:
    """Read files of ``bundle/configs``, a later one over an earlier, and replace top-level values."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / file) for file in files])
    parser.update(dict(overrides))
    return parser


def from_config(file: str, part: str, overrides: Mapping[str, Any]) -> Any:
    """Resolve an id of another config file in ``bundle/configs``.

    Does what MONAI's ``%file::id`` macro does, but finds the file from any working directory, keeps the references
    inside it, and takes overrides.

    Args:
        file: name of the file in ``bundle/configs``.
        part: id to resolve.
        overrides: top-level values of that file to replace.
    """
    return parse([file], overrides).get_parsed_content(part)


def method_names() -> list[str]:
    """Every method that has a file in ``configs/methods``."""
    return sorted(file.stem for file in (CONFIGS / "methods").glob("*.yaml"))


def method_files(name: str) -> list[str]:
    """The files that describe a method, in the order in which they are read: what it extends, and its own.

    Args:
        name: of a file in ``configs/methods``, or the path of a file that lies elsewhere.

    Raises:
        InputError: when there is no such file.
    """
    file = CONFIGS / "methods" / f"{name}.yaml" if not str(name).endswith((".yaml", ".json")) else Path(name).absolute()
    if not file.is_file():
        raise InputError(
            f"there is no method '{name}'; the methods are {', '.join(method_names())}, or a YAML file of your own"
        )
    base = ConfigParser.load_config_file(str(file)).get("extends")
    return [*(method_files(base) if base else []), str(file)]
