"""A patch of another person's brain, blended in: what foreign patch interpolation learns to see."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform, ResizeWithPadOrCrop
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..randomness import RandDictionaryTransform

__all__ = ["RandForeignPatch", "RandForeignPatchd"]


class RandForeignPatch(RandomizableTransform):
    """Replace a random cuboid of a scan by ``(1 - a) scan + a other``.

    Args:
        size: range of the edges of the cuboid, as shares of the scan's [paper: 0.1 to 0.4].
        share: range of a.

    References:
        J. Tan et al., Detecting Outliers with Foreign Patch Interpolation, MELBA 2022.
    """

    def __init__(self, size: Sequence[float] = (0.1, 0.4), share: Sequence[float] = (0.05, 0.95)) -> None:
        super().__init__(prob=1.0)
        self.size = tuple(size)
        self.share = tuple(share)

    def randomize(self, data: torch.Tensor) -> None:
        """Draw a cuboid around a voxel of the brain `data`."""
        super().randomize(None)
        centres = (convert_to_tensor(data, track_meta=False)[0] > 0).nonzero()
        self._centre = centres[self.R.randint(len(centres))].tolist()
        self._half = [0.5 * n * self.R.uniform(*self.size) for n in data.shape[1:]]
        self._share = self.R.uniform(*self.share)

    def __call__(
        self, scan: torch.Tensor, other: torch.Tensor, brain: torch.Tensor, randomize: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            scan: ``(1, X, Y, Z)``.
            other: scan of another person, any grid; it is centred on that of the scan.
            brain: mask of the scan; what lies outside stays as it is.
            randomize: draw anew.

        Returns:
            the mixed scan, and the map of a, 0 outside of the cuboid.
        """
        if randomize:
            self.randomize(brain)
        values = convert_to_tensor(scan, track_meta=False).float()
        foreign = convert_to_tensor(ResizeWithPadOrCrop(values.shape[1:])(other), track_meta=False).float()
        box = [slice(max(0, int(c - half)), int(c + half) + 1) for c, half in zip(self._centre, self._half)]
        label = torch.zeros_like(values)
        label[(slice(None), *box)] = self._share
        label *= convert_to_tensor(brain, track_meta=False) > 0
        mixed = torch.lerp(values, foreign, label)
        return convert_to_dst_type(mixed, scan)[0], convert_to_dst_type(label, scan)[0]


class RandForeignPatchd(RandDictionaryTransform):
    """Dictionary form of `RandForeignPatch`.

    Args:
        keys: one key, the scan.
        foreign: cases of other people, with the same key and ``modality``; one of the same modality is taken where there is one.
        label_key: where the map of a goes.
        brain_key: mask of the brain.
        patch: arguments of `RandForeignPatch`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        foreign: Sequence[Mapping[Hashable, Any]],
        label_key: str = "label",
        brain_key: str = "brain",
        **patch,
    ) -> None:
        super().__init__(keys, RandForeignPatch(**patch))
        self.foreign = foreign
        self.label_key = label_key
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        same = [n for n, case in enumerate(self.foreign) if case["modality"] == data["modality"]] or [0]
        other = self.foreign[same[self.R.randint(len(same))]][self.keys[0]]
        mixed, label = self.transform(data[self.keys[0]], other, data[self.brain_key])
        return {**data, self.keys[0]: mixed, self.label_key: label}
