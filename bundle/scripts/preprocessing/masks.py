"""What a file that should be a lesion mask says: lesion or not in every voxel, or why it cannot be one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..errors import InputError
from ..volumes import voxel_ml

__all__ = ["LesionMaskOfFiled", "lesion_mask"]

LARGEST_ML = 700.0  # the largest strokes have 400 ml; a brain has more than 900
MOST_LABELS = 20  # with more different whole numbers an image is no label map


def _told(values: Sequence[float], most: int = 6) -> str:
    told = [f"{value:g}" for value in values[:most]]
    return ", ".join(told) + (" ..." if len(values) > most else "")


def lesion_mask(
    volume: MetaTensor, label_value: int | Sequence[int] | None = None, may_be_empty: bool = False
) -> MetaTensor:
    """The lesion of a mask, a probability or a label map.

    One value above 0, whatever it is, marks the lesion; of a probability 0.5 and more. NaN, infinite and negative voxels are
    background.

    Args:
        volume: ``(1, X, Y, Z)``, with its file in ``filename_or_obj``.
        label_value: which values of a label map are lesion; None where there is only one.
        may_be_empty: a mask without any voxel means that there is no lesion.

    Returns:
        float32 0 and 1, of the same shape.

    Raises:
        InputError: when nothing is marked, several labels are and none is chosen, the values are those of an image, or so much
            is marked that it is a brain mask or an inverted one.
    """
    name = Path(str(volume.meta.get("filename_or_obj", "the lesion mask")))
    raw = volume.as_tensor()
    unknown = int((~torch.isfinite(raw)).sum())
    values = raw.nan_to_num(0.0, 0.0, 0.0).clamp(min=0.0)
    found = values[values > 0].unique().tolist()
    top = max(found, default=0.0)
    whole = all(abs(value - round(value)) < 1e-3 for value in found)
    if label_value is not None:
        wanted = [label_value] if isinstance(label_value, (int, float)) else list(label_value)
        mask = torch.isin(values.round(), torch.tensor([float(value) for value in wanted]))
        if not mask.any() and not may_be_empty:
            raise InputError(
                f"{name} has no voxel of the label {_told(wanted)}, which --label_value asks for; it has {_told(found) or 'only 0'}"
            )
    elif not found:
        if not may_be_empty or unknown:
            nan = f" or not finite ({unknown} voxels)" if unknown else ""
            raise InputError(f"{name} marks no lesion: every voxel is 0{nan}; trace the lesion, or leave the mask out")
        mask = values > 0
    elif top < 0.5:
        raise InputError(
            f"{name} marks no lesion: its largest value is {top:.2f}, and a probability counts from 0.5 on; threshold it first"
        )
    elif len(found) == 1:
        mask = values > 0
    elif top <= 1.0 + 1e-3:
        mask = values >= 0.5
    elif whole and len(found) <= MOST_LABELS:
        raise InputError(
            f"{name} has the labels {_told(found)}; say which are lesion, such as --label_value {round(found[0])} or "
            f'--label_value "[{round(found[0])},{round(found[1])}]"'
        )
    else:
        raise InputError(
            f"{name} has {len(found)} different values up to {top:g}: it is an image, no lesion mask; give a mask of 0 and 1"
        )
    marked_ml = float(mask.sum()) * voxel_ml(volume)
    if marked_ml > LARGEST_ML:
        raise InputError(
            f"{name} marks {marked_ml:.0f} ml, which no lesion has: it is a brain mask or an inverted one; give the lesion as 1"
        )
    return MetaTensor(mask.float(), meta=dict(volume.meta))


class LesionMaskOfFiled(MapTransform):
    """Dictionary version of `lesion_mask`, for the subjects of a training: an empty mask says that there is no lesion.

    Args:
        keys: masks as they were read; ``label_value`` of the data says which labels are lesion.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = lesion_mask(d[key], d.get("label_value"), may_be_empty=True)
        return d
