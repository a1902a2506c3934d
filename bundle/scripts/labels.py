"""Label schemes: which numbers are left, right, or a tissue. One small table in the config describes a scheme."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt

from .errors import InputError

__all__ = ["CleanLabelsd", "LabelTable", "TissueMapd", "TissueMaskd", "TrimLabelsd"]


class LabelTable:
    """A label scheme.

    Args:
        left: labels of the left hemisphere.
        right: their partners of the right hemisphere, in the same order.
        neutral: labels on no side.
        tissues: labels by tissue name, for example ``{"white_matter": [2, 41]}``. `RandAnomalyEncoding` needs
            ``white_matter`` and ``gray_matter``; appearances may name any.
        merge: labels to replace before anything else, for example a lesion label by its tissue [code: {77: 2}].
        drop_above: larger labels are not brain and become background [code: 255].

    Raises:
        InputError: when left and right differ in length.
    """

    def __init__(
        self,
        left: Sequence[int],
        right: Sequence[int],
        neutral: Sequence[int],
        tissues: Mapping[str, Sequence[int]],
        merge: Mapping[int, int] | None = None,
        drop_above: int = 255,
    ) -> None:
        if len(left) != len(right):
            raise InputError(f"label table: {len(left)} left but {len(right)} right labels; list them in pairs")
        self.left, self.right, self.neutral = list(left), list(right), list(neutral)
        self.tissues = {name: list(labels) for name, labels in tissues.items()}
        self.merge = {int(old): int(new) for old, new in (merge or {}).items()}
        self.drop_above = drop_above

    def lookup(self, values: Mapping[int, float], default: float = 0.0) -> torch.Tensor:
        """A vector that maps every label up to `drop_above` to its value."""
        table = torch.full((self.drop_above + 1,), float(default))
        for label, value in values.items():
            table[label] = value
        return table

    def clean(self, label_map: torch.Tensor) -> torch.Tensor:
        """Drop what is not brain, merge labels, and refuse labels that the table does not know.

        Args:
            label_map: integer-valued label map of any shape.

        Returns:
            int64 label map with the meta data of the input.

        Raises:
            InputError: on unknown labels, or when no brain label is left.
        """
        labels = convert_to_tensor(label_map, track_meta=False).round().long()
        labels = torch.where((labels < 0) | (labels > self.drop_above), 0, labels)
        for old, new in self.merge.items():
            labels[labels == old] = new
        source = (
            label_map.meta.get("filename_or_obj", "label map") if isinstance(label_map, MetaTensor) else "label map"
        )
        unknown = sorted(set(labels.unique().tolist()) - {0, *self.left, *self.right, *self.neutral})
        if unknown:
            raise InputError(f"{source} has labels {unknown} that the label table does not list; add them to it")
        if not labels.any():
            raise InputError(f"{source} has no brain label; is it a label map, and of the scheme in the label table?")
        return convert_to_dst_type(labels, label_map, dtype=torch.int64)[0]

    def mask(self, label_map: torch.Tensor, tissue: str) -> torch.Tensor:
        """Boolean mask of a tissue; shape and type of container as `label_map`."""
        if tissue not in self.tissues:
            raise InputError(f"the label table has no tissue '{tissue}', only {sorted(self.tissues)}")
        member = self.lookup(dict.fromkeys(self.tissues[tissue], 1.0)).to(label_map.device)
        return member[convert_to_tensor(label_map, track_meta=False).long()] > 0

    def swap_sides(self, label_map: torch.Tensor) -> torch.Tensor:
        """Exchange left and right labels (not positions)."""
        table = np.arange(self.drop_above + 1)
        table[self.left], table[self.right] = self.right, self.left
        labels = convert_to_tensor(label_map, track_meta=False).long()
        swapped = torch.as_tensor(table, device=labels.device)[labels]
        return convert_to_dst_type(swapped, label_map, dtype=label_map.dtype)[0]


class CleanLabelsd(MapTransform):
    """Apply `LabelTable.clean` to label maps.

    Args:
        keys: label maps.
        labels: label scheme.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(self, keys: KeysCollection, labels: LabelTable, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.labels.clean(d[key])
        return d


class TrimLabelsd(MapTransform):
    """Drop the outer part of a label that surrounds the brain, such as the CSF up to the skull, as a brain extraction does.

    What lies within the morphological closing of all other labels stays: sulci, fissures and a thin rim.

    Args:
        keys: label maps with an affine.
        outer: the labels to trim.
        radius: mm, of the closing; the rim that stays is a third of it.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(
        self, keys: KeysCollection, outer: Sequence[int], radius: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.outer = list(outer)
        self.radius = radius

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            labels = d[key].numpy()[0]
            trimmed = np.isin(labels, self.outer)
            if not trimmed.any():
                continue
            spacing = affine_to_spacing(d[key].affine).tolist()
            near = distance_transform_edt(trimmed | (labels == 0), spacing) <= self.radius
            # The distance to what is not there has no meaning.
            closed = near if near.all() else distance_transform_edt(near, spacing) > self.radius * 2 / 3
            d[key] = convert_to_dst_type(np.where(trimmed & ~closed, 0, labels)[None], d[key])[0]
        return d


class TissueMaskd(MapTransform):
    """Add the mask of a tissue, or of the whole brain, as float32 0/1.

    Args:
        keys: one key, the label map.
        labels: label scheme.
        tissue: a tissue of the scheme; None for every label above 0.
        mask_key: where the mask goes.
    """

    def __init__(
        self, keys: KeysCollection, labels: LabelTable, tissue: str | None = None, mask_key: str = "brain"
    ) -> None:
        super().__init__(keys)
        self.labels = labels
        self.tissue = tissue
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        label_map = data[self.keys[0]]
        mask = label_map > 0 if self.tissue is None else self.labels.mask(label_map, self.tissue)
        return {**data, self.mask_key: convert_to_dst_type(mask, label_map, dtype=torch.float32)[0]}


class TissueMapd(MapTransform):
    """Add a map of few tissues: 1 for the first, 2 for the second and so on; 0 is background.

    Args:
        keys: one key, the label map.
        labels: label scheme.
        groups: names of tissues of the scheme that count as one, for each tissue of the map.
        other: number of the brain's labels that are in no group.
        map_key: where the map goes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: LabelTable,
        groups: Sequence[Sequence[str]],
        other: int,
        map_key: str = "tissues",
    ) -> None:
        super().__init__(keys)
        numbers = dict.fromkeys([*labels.left, *labels.right, *labels.neutral], float(other))
        for number, names in enumerate(groups, start=1):
            numbers.update(dict.fromkeys((label for name in names for label in labels.tissues[name]), float(number)))
        self.table = labels.lookup(numbers)
        self.map_key = map_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        label_map = data[self.keys[0]]
        tissues = self.table.to(label_map.device)[convert_to_tensor(label_map, track_meta=False).long()]
        return {**data, self.map_key: convert_to_dst_type(tissues, label_map, dtype=torch.float32)[0]}
