"""One T1w contrast for the targets of all scanners."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..errors import InputError
from ..labels import LabelTable
from .contrast_curve import along_curve

__all__ = ["TypicalContrast", "TypicalContrastd"]


class TypicalContrast(Transform):
    """Bring the tissues of a healthy T1w to fixed intensities, by a rising curve that is linear between them.

    Sequences differ in how far deep gray matter and white matter stand apart. A network that is asked for the T1w of several
    scanners is asked for several answers to one question. The curve keeps the order of intensities, so that the anatomy stays;
    it needs the person's label map. Not in the paper.

    Args:
        labels: label scheme.
        values: intensity by tissue of the scheme, from dark to bright. The median of each tissue is sent there.
        least: voxels that a tissue needs to count.

    Returns (of a call):
        float32, same shape, in [0, 1]; 0 stays 0.

    Raises:
        InputError: when the values do not rise.
    """

    def __init__(self, labels: LabelTable, values: Mapping[str, float], least: int = 100) -> None:
        if sorted(values.values()) != list(values.values()):
            raise InputError(f"the typical contrast must rise from tissue to tissue, not {dict(values)}")
        self.labels = labels
        self.values = dict(values)
        self.least = least

    def knots(self, t1: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Intensities of the T1w, and what becomes of them.

        Args:
            t1: ``(1, X, Y, Z)`` in [0, 1].
            label: label map of the same shape.
        """
        image = convert_to_tensor(t1, track_meta=False)
        before, after = [0.0], [0.0]
        for tissue, value in self.values.items():
            inside = image[convert_to_tensor(self.labels.mask(label, tissue), track_meta=False)]
            # A tissue that is no brighter than the one before it, or that a label map lacks, says nothing.
            if len(inside) >= self.least and float(inside.median()) > before[-1] + 1e-3:
                before.append(float(inside.median()))
                after.append(value)
        before.append(max(1.0, before[-1] + 1e-3))
        after.append(min(1.0, after[-1] * before[-1] / max(before[-2], 1e-3)))
        return torch.tensor(before), torch.tensor(after)

    def __call__(self, t1: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        image = convert_to_tensor(t1, track_meta=False).to(torch.float32)
        return convert_to_dst_type(along_curve(image, *self.knots(t1, label)), t1, dtype=torch.float32)[0]


class TypicalContrastd(MapTransform):
    """Dictionary form of `TypicalContrast`. A subject without a label map keeps its contrast.

    Args:
        keys: healthy T1w.
        label_key: label map.
        allow_missing_keys: skip keys that the data does not have.
        contrast: arguments of `TypicalContrast`.
    """

    def __init__(
        self, keys: KeysCollection, label_key: str = "label", allow_missing_keys: bool = False, **contrast
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = TypicalContrast(**contrast)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d) if self.label_key in d else ():
            d[key] = self.transform(d[key], d[self.label_key])
        return d
