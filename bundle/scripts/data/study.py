"""A small study for a comparison: healthy and diseased scans of generated people, in splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..saving import write_whole
from .cohort import write_cohort

__all__ = ["write_study"]


def write_study(parts: Sequence[Mapping[str, Any]], output_dir: str | Path, voxel_size: float) -> Path:
    """Write cohorts of generated T1w as the splits of one datalist; what is there is kept.

    Args:
        parts: each with ``split``, ``samples`` (see `DrawDataset`), ``number`` of samples, and ``diseased``.
        output_dir: where to write.
        voxel_size: mm, of the samples.

    Returns:
        path of the datalist.
    """
    output_dir = Path(output_dir)
    datalist = output_dir / "datalist.json"
    if datalist.is_file():
        return datalist
    splits: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        name = f"{part['split']}_{'diseased' if part['diseased'] else 'healthy'}"
        cohort = write_cohort(part["samples"], output_dir / name, part["number"], voxel_size, prefix=name)
        for entry in json.loads(cohort.read_text())["test"]:
            known = {"anomaly": f"{name}/{entry['anomaly']}"} if part["diseased"] else {"diseased": False}
            scan = {"subject": entry["subject"], "image": f"{name}/{entry['image']}", "modality": "t1", **known}
            splits.setdefault(part["split"], []).append(scan)
    write_whole(datalist, json.dumps(splits, indent=1))
    return datalist
