"""Healthy T1w and intact scan as sharp as the scan itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialCrop, generate_spatial_bounding_box

from ..preprocessing import WindowCTd
from ..volumes import at_partners, on_grid

__all__ = ["FineBlend", "FineBlendd"]

LEAST, MOST = (
    0.05,
    0.95,
)  # of the full scale, between which scan and prepared scan are compared: what was cut says nothing


class FineBlend:
    """Blend a scan on its own grid with the weights that a network found on a coarser one.

    The network gives every voxel a weight of the scan, of its mirror image and of a constant (`BlendingUNet`). The weights are
    smooth, so that they may be interpolated; the detail comes from the scan. What is drawn on the coarse grid and then enlarged is
    blurred. The mirror image of the scan is interpolated, and so a little softer.
    """

    def __call__(
        self,
        weights: MetaTensor,
        image: MetaTensor,
        prepared: MetaTensor,
        brain: MetaTensor,
        mirror_transform: np.ndarray,
    ) -> MetaTensor:
        """
        Args:
            weights: ``(outputs * 3, X', Y', Z')``, by output the weights of scan, mirror image and constant, on the coarse grid.
            image: the scan on its own grid, ``(1, X, Y, Z)``, background 0, a CT cut to its window.
            prepared: the scan that the network saw, which tells the scale.
            brain: mask on the coarse grid.
            mirror_transform: 4x4 matrix on RAS mm that maps a point to its partner of the other side.

        Returns:
            ``(outputs, X, Y, Z)``, on the scale of the prepared scan, 0 outside of the brain.
        """
        seen = on_grid(image, prepared)
        alike = (brain > 0.5) & (seen > 0) & (prepared > LEAST) & (prepared < MOST)
        factor = float((prepared[alike] / seen[alike]).median()) if bool(alike.any()) else 0.0
        inside = on_grid(brain, image) > 0.5
        blended = torch.zeros(len(weights) // 3, *image.shape[1:])
        if bool(inside.any()):
            start, end = generate_spatial_bounding_box(inside.as_tensor())
            crop = SpatialCrop(roi_start=start, roi_end=end)
            scan = crop(image).clamp(min=0.0) * factor
            scan = scan.clamp(max=1.0) * crop(inside)
            blended[(slice(None), *map(slice, start, end))] = self._blended(weights, scan, mirror_transform) * crop(
                inside
            )
        return MetaTensor(blended, meta=dict(image.meta))

    @staticmethod
    def _blended(weights: MetaTensor, scan: MetaTensor, mirror_transform: np.ndarray) -> torch.Tensor:
        partner = at_partners(scan, mirror_transform, scan)
        sources = (scan.as_tensor(), partner.as_tensor(), torch.ones(1))
        images = []
        for first in range(0, len(weights), len(sources)):
            image = torch.zeros(scan.shape)
            for number, source in enumerate(sources, start=first):
                weight = MetaTensor(weights.as_tensor()[number : number + 1], affine=weights.affine)
                image += on_grid(weight, scan).as_tensor() * source
            images.append(image)
        return torch.cat(images)


class FineBlendd(MapTransform):
    """Dictionary form of `FineBlend`: the maps of a network that blends are replaced by finer ones on the grid of the scan.

    Where a case has no weights, since the method does not blend, nothing is changed.

    Args:
        keys: the outputs of the network, in its order.
        image_key: the scan as read.
        prepared_key, brain_key, weights_key, mirror_key: see `FineBlend`.
        modality_key: modality of the scan, which says whether it is a CT.
        window: HU, see `WindowCTd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "original",
        prepared_key: str = "scan",
        brain_key: str = "brain",
        weights_key: str = "weights",
        mirror_key: str = "mirror_transform",
        modality_key: str = "modality",
        window: tuple[float, float] = (0.0, 80.0),
    ) -> None:
        super().__init__(keys)
        self.blend = FineBlend()
        self.image_key = image_key
        self.prepared_key = prepared_key
        self.brain_key = brain_key
        self.weights_key = weights_key
        self.mirror_key = mirror_key
        self.modality_key = modality_key
        self.window = WindowCTd("image", window)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        if self.weights_key not in data:
            return dict(data)
        image = self.window({"image": data[self.image_key], "modality": data[self.modality_key]})["image"]
        others = (data[key] for key in (self.prepared_key, self.brain_key, self.mirror_key))
        fine = self.blend(data[self.weights_key], image, *others)
        return {**data, **{key: fine[n : n + 1] for n, key in enumerate(self.keys)}}
