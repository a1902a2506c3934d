"""The models that a viewer lists: lesion, healthy brain, score, and the lesion refined by clicks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from scripts.errors import InputError
from scripts.modalities import MODALITIES
from scripts.volumes import read_volume, same_grid, voxel_ml

from .analysis import Analyst, write_volume
from .refine import refined

__all__ = ["Anomaly", "Healthy", "Refine", "Score"]

CHOICES = ["guess", *MODALITIES]
EXTENSIONS = (".nii.gz", ".nii", ".nrrd")


def _number(request: Mapping[str, Any], key: str, low: float, high: float) -> float:
    """A number that a client sent.

    Raises:
        InputError: when it is none, or out of range.
    """
    try:
        if isinstance(request[key], bool):
            raise TypeError("a boolean")
        value = float(request[key])
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} must be a number, got {request[key]!r}") from error
    if not low <= value <= high:
        raise InputError(f"{key} must lie between {low:g} and {high:g}, got {value:g}")
    return value


def _choice(request: Mapping[str, Any], key: str, options: list[str]) -> str:
    """One of the options; a client that shows them as a list sends the list back when nothing was chosen."""
    value = request.get(key, options[0])
    value = value[0] if isinstance(value, list) and value else value
    if value not in options:
        raise InputError(f"{key} must be one of {', '.join(options)}, got {value!r}")
    return value


class _Task(InferTask):
    """Common to all models: analyse the scan (once for all of them) and write a volume on its grid."""

    kind: InferType
    dtype: Any
    says: str

    def __init__(self, analyst: Analyst, labels: Any, config: Mapping[str, Any]) -> None:
        super().__init__(
            self.kind, labels, 3, f"{self.says} [{analyst['description']}]", {"modality": CHOICES, **config}
        )
        self.analyst = analyst

    def is_valid(self) -> bool:
        return self.analyst.weights.current().is_file()

    def result(self, analysis: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[MetaTensor, dict[str, Any]]:
        """The volume to answer with, ``(1, X, Y, Z)`` on the scan's grid, and what to say of it."""
        raise NotImplementedError

    def analysis(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The analysis that answers a request, made once."""
        modality = _choice(request, "modality", CHOICES)
        return self.analyst.analyse(request["image"], None if modality == "guess" else modality)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        started = time.monotonic()
        request = {**self.config(), **request}
        extension = request.get("result_extension") or ".nii.gz"
        if extension not in EXTENSIONS:
            raise InputError(f"result_extension must be one of {', '.join(EXTENSIONS)}, got {extension!r}")
        analysis = self.analysis(request)
        volume, said = self.result(analysis, request)
        said |= {
            "label_names": self.labels,
            "modality": analysis["modality"],
            "weights": self.analyst.weights.info()["version"],
            "seconds": round(time.monotonic() - started, 2),
            "centroids": {},
        }
        return write_volume(volume, extension, self.dtype), said


class Healthy(_Task):
    """The healthy T1w, to blink or fade against the scan."""

    kind = InferType.OTHERS
    dtype = np.float32
    says = "The T1w that this person would have without disease"

    def __init__(self, analyst: Analyst) -> None:
        super().__init__(analyst, None, {})

    def result(self, analysis: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[MetaTensor, dict[str, Any]]:
        return self.analyst.healthy(analysis), {}


class Score(_Task):
    """The anomaly score: levels as labels, which every viewer can colour, or the score itself."""

    kind = InferType.SEGMENTATION
    dtype = None  # that of the volume: uint8 for levels, float32 for the score
    says = "Anomaly score, in levels"

    def __init__(self, analyst: Analyst) -> None:
        self.levels = sorted(analyst["levels"])
        labels = {f"score above {level:g}": number for number, level in enumerate(self.levels, 1)}
        super().__init__(analyst, labels, {"score": analyst["scores"], "values": ["levels", "score"]})

    def result(self, analysis: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[MetaTensor, dict[str, Any]]:
        score = self.analyst.on_scan(analysis, _choice(request, "score", self.analyst["scores"]))
        said = {"max": float(score.max()), "levels": self.levels}
        if _choice(request, "values", ["levels", "score"]) == "score":
            return score, said
        levels = torch.bucketize(score.as_tensor().contiguous(), torch.tensor(self.levels), right=True)
        return convert_to_dst_type(levels.to(torch.uint8), score, dtype=torch.uint8)[0], said


class Anomaly(_Task):
    """The lesion mask."""

    kind = InferType.SEGMENTATION
    dtype = np.uint8
    says = "Lesions: what differs from the healthy brain"

    def __init__(self, analyst: Analyst) -> None:
        settings = analyst.settings()
        super().__init__(analyst, {"lesion": 1}, {"score": analyst["scores"], **settings})

    def mask(self, analysis: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[MetaTensor, MetaTensor]:
        key = _choice(request, "score", self.analyst["scores"])
        lesion = self.analyst.lesion(
            analysis,
            key,
            threshold=_number(request, "threshold", 0.0, 1000.0),
            min_volume_ml=_number(request, "min_volume_ml", 0.0, 1000.0),
        )
        return lesion, self.analyst.on_scan(analysis, key)

    def result(self, analysis: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[MetaTensor, dict[str, Any]]:
        lesion, score = self.mask(analysis, request)
        return lesion, self.figures(lesion, score)

    def figures(self, lesion: MetaTensor, score: MetaTensor) -> dict[str, Any]:
        inside = torch.as_tensor(score)[torch.as_tensor(lesion) > 0]
        return {
            "lesion_ml": float(lesion.sum()) * voxel_ml(lesion),
            "mean_score_in_lesion": float(inside.mean()) if inside.numel() else None,
        }


class Refine(Anomaly):
    """The lesion mask, or the mask that a reader sends, with clicks applied; see `refined`."""

    kind = InferType.DEEPEDIT
    says = "Lesions, refined by clicks: foreground adds, background removes"

    def result(self, analysis: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[MetaTensor, dict[str, Any]]:
        lesion, score = self.mask(analysis, request)
        if request.get("label"):
            sent = read_volume(request["label"])
            if not same_grid(sent, lesion):
                raise InputError("the mask that was sent is not on the grid of the scan; export it on the scan's grid")
            lesion = convert_to_dst_type((sent > 0).to(torch.uint8), lesion, dtype=torch.uint8)[0]
        brain = self.analyst.on_scan(analysis, "brain") > 0.5
        new = refined(
            np.asarray(lesion[0]) > 0,
            np.asarray(score[0]),
            np.asarray(brain[0]),
            np.asarray(score.affine),
            add=[*(request.get("foreground") or ()), *(request.get("lesion") or ())],  # OHIF names points by label
            remove=request.get("background") or (),
        )
        mask = convert_to_dst_type(new[None].astype(np.uint8), lesion, dtype=torch.uint8)[0]
        return mask, self.figures(mask, score)
