"""Where the field of view cuts a brain."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform

from ..volumes import voxel_ml

__all__ = ["FieldOfViewd", "depth_in_field_of_view"]

WORTH_SAYING = 2.0  # ml of brain beside the border: a brain that is cropped tightly touches its box in less


def depth_in_field_of_view(grid: MetaTensor, scan: MetaTensor) -> np.ndarray:
    """How deep each voxel of a grid lies below the nearest face of the field of view of a scan.

    Args:
        grid: ``(1, X, Y, Z)``, with an affine to RAS mm.
        scan: as read, any orientation.

    Returns:
        ``(X, Y, Z)``, mm; negative outside.
    """
    to_scan = np.linalg.inv(np.asarray(scan.affine)) @ np.asarray(grid.affine)
    index = np.indices(grid.shape[1:]).reshape(3, -1)
    place = to_scan[:3, :3] @ index + to_scan[:3, 3:]
    sizes = np.reshape(scan.shape[1:], (3, 1))
    faces = np.minimum(place + 0.5, sizes - 0.5 - place)  # voxels of the scan
    return (faces * affine_to_spacing(scan.affine).numpy()[:, None]).min(axis=0).reshape(grid.shape[1:])


class FieldOfViewd(MapTransform):
    """Add ``seen``: 1 where the brain lies deep enough in the field of view to be judged.

    A brain that the border of its scan cuts looks like nothing that a network was taught. Where there is much of it, the scan's
    ``scan_warnings`` say so.

    Args:
        keys: one key, the scan as read.
        brain_key: brain mask on the working grid.
        seen_key: where the mask goes.
        margin: mm below the border that are left out.
    """

    def __init__(
        self, keys: KeysCollection, brain_key: str = "brain", seen_key: str = "seen", margin: float = 4.0
    ) -> None:
        super().__init__(keys)
        self.brain_key = brain_key
        self.seen_key = seen_key
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        scan, brain = data[self.keys[0]], data[self.brain_key]
        deep = torch.from_numpy(depth_in_field_of_view(brain, scan) >= self.margin)[None].to(brain.device)
        left_out = float(((brain > 0) & ~deep).sum()) * voxel_ml(brain)
        if left_out > WORTH_SAYING:
            told = f"{left_out:.0f} ml of the brain lie within {self.margin:g} mm of the border of the scan, and have no score"
            scan.meta["scan_warnings"] = [*(scan.meta.get("scan_warnings") or []), told]
        return {**data, self.seen_key: MetaTensor(deep.float(), meta=dict(brain.meta))}
