"""Where the configs and weights of the bundle lie: beside the package in the bundle, inside of it once it is installed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONFIGS", "ROOT"]

_HERE = Path(__file__).resolve().parent
ROOT = _HERE.parent if (_HERE.parent / "configs" / "metadata.json").is_file() else _HERE / "bundle"
CONFIGS = ROOT / "configs"
