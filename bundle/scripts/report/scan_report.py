"""The numbers of one analysed scan, as JSON."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from .. import __version__
from ..saving import output_base, write_whole
from ..volumes import voxel_ml

__all__ = ["ScanReportd", "scan_report"]


def scan_report(score: MetaTensor, lesion: MetaTensor) -> dict[str, Any]:
    """Volumes in ml and a summary of the score.

    Args:
        score: ``(1, X, Y, Z)`` anomaly score in [0, 1].
        lesion: mask of the same shape, both with the affine of the scan.
    """
    each = voxel_ml(lesion)
    mask = np.asarray(lesion[0]) > 0
    components, count = ndimage.label(mask)
    sizes = sorted((np.bincount(components.ravel())[1:] * each).tolist(), reverse=True)
    scored = np.asarray(score[0], dtype=np.float32)
    inside = scored[scored > 0]
    summary = {
        "mean": float(inside.mean()) if inside.size else 0.0,
        "max": float(scored.max()),
        "percentile_99": float(np.percentile(inside, 99)) if inside.size else 0.0,
        "mean_in_lesion": float(scored[mask].mean()) if mask.any() else None,
    }
    return {
        "lesion_volume_ml": float(mask.sum() * each),
        "lesion_count": int(count),
        "lesion_volumes_ml": [round(size, 3) for size in sizes],
        "score": summary,
    }


SURE = 0.5  # confidence of a guess of the modality, from which on it may contradict a name


class ScanReportd(MapTransform):
    """Write ``<name>_report.json`` beside the images of a scan, and print a line of it.

    Args:
        keys: score and lesion mask; the data also has ``modality`` and ``brain``, whose meta data tell how it was found.
        source_key: the scan, whose file name is taken.
        output_dir: where to write.
        data_root_dir: folder of the inputs, whose sub-folders are kept below `output_dir`.
        settings: what the result depends on, copied into the report.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str,
        output_dir: str | Path,
        data_root_dir: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys)
        self.source_key = source_key
        self.output_dir = str(output_dir)
        self.data_root_dir = data_root_dir
        self.settings = dict(settings or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        score, lesion = (data[key] for key in self.keys)
        source = data[self.source_key].meta["filename_or_obj"]
        flags = [
            *(data[self.source_key].meta.get("scan_warnings") or []),
            *(data["brain"].meta.get("brain_warnings") or []),
        ]
        guess, confidence = data.get("modality_guess"), float(data.get("modality_confidence", 0.0))
        if guess not in (None, data["modality"]) and confidence > SURE:
            flags.append(f"it is called {data['modality']}, and its intensities look like {guess}")
        content = {
            "scan": str(source),
            "modality": data["modality"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **scan_report(score.cpu(), lesion.cpu()),
            "brain": {key: data["brain"].meta.get(f"{key}") for key in ("brain_method", "trimmed_ml")},
            "flags": flags,
            "settings": self.settings,
            "versions": {"una": __version__, "monai": monai.__version__, "torch": torch.__version__},
            "notice": "Research use only, not for clinical decisions.",
        }
        base = output_base(str(source), "report", self.output_dir, self.data_root_dir)
        write_whole(f"{base}.json", json.dumps(content, indent=1, default=str))
        found = f"{content['lesion_count']} lesions, {content['lesion_volume_ml']:.2f} ml"
        print(f"{source}: {data['modality']}, {found}{'; look at: ' + '; '.join(flags) if flags else ''}", flush=True)
        return dict(data)
