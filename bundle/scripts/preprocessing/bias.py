"""Bias field correction."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.itk_torch_bridge import itk_image_to_metatensor, metatensor_to_itk_image
from monai.transforms import MapTransform, ResampleToMatch
from monai.utils import optional_import

from .align import AlignToRAS

itk, _ = optional_import("itk")  # a training on packed subjects has no need of it

__all__ = ["CorrectBiasd"]


class CorrectBiasd(MapTransform):
    """Divide an MR scan by its bias field, as ITK's N4 finds it on a coarse grid. A CT is left alone.

    Args:
        keys: one key, the scan, on the grid of its brain mask.
        brain_key: mask of the brain.
        voxel_size: of the coarse grid, mm; the field is far smoother.
        iterations: on each of N4's levels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        brain_key: str = "brain",
        voxel_size: float = 4.0,
        iterations: tuple[int, ...] = (40, 40, 30),
    ) -> None:
        super().__init__(keys)
        self.brain_key = brain_key
        self.align = AlignToRAS(voxel_size)
        self.iterations = iterations

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        d = dict(data)
        scan = d[self.keys[0]]
        if d.get("modality") == "ct":
            return d
        low, mask = self.align(scan), (self.align(d[self.brain_key]) > 0.5).float()
        # N4 takes logarithms, and its histogram expects scanner-like values.
        low = MetaTensor((low.as_tensor().clamp(min=0.0) / low.max() + 1e-3) * 1e3, affine=low.affine)
        image = metatensor_to_itk_image(low, channel_dim=0, dtype="float32")
        domain = metatensor_to_itk_image(mask, channel_dim=0, dtype="uint8")
        n4 = itk.N4BiasFieldCorrectionImageFilter.New(
            Input=image, MaskImage=domain, NumberOfFittingLevels=len(self.iterations)
        )
        n4.SetMaximumNumberOfIterations(list(self.iterations))
        n4.Update()
        corrected = itk_image_to_metatensor(n4.GetOutput(), channel_dim=None)
        field = low.as_tensor() / corrected.as_tensor().clamp(min=1e-6)
        field = torch.where(mask.as_tensor() > 0, field, field[mask.as_tensor() > 0].median())
        field = MetaTensor(field.clamp(0.1, 10.0).float(), affine=low.affine)
        full = ResampleToMatch(mode="bilinear", padding_mode="border")(field, img_dst=scan)
        d[self.keys[0]] = MetaTensor(scan.as_tensor() / full.as_tensor(), meta=dict(scan.meta))
        return d
