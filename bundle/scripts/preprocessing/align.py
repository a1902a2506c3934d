"""Read a scan as it comes, and bring it to an axis-aligned RAS grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai.transforms import MapTransform, SpatialResample, Transform
from torch.nn.functional import avg_pool3d

from ..errors import InputError
from ..volumes import read_volume
from .hot_voxels import without_hot_voxels

__all__ = ["AlignToRAS", "AlignToRASd", "ReadScand"]

SMALLEST_HEAD, LARGEST_HEAD = 60.0, 600.0  # mm, of the field of view along each axis
LEVELS = 12  # with fewer different values an image is a mask or a label map


class ReadScand(MapTransform):
    """Load a scan, unless the data says that it has a ``problem``. Voxels that are not finite stay what they are: they are
    background, see `zero_background`. Single hot voxels are replaced, with a warning: see `without_hot_voxels`.

    Args:
        keys: one key, what `read_volume` takes. Results are named after ``output_name`` where the data has it.

    Raises:
        InputError: when the file cannot be a head scan: see `read_volume`; no contrast; a mask or a label map; a field of view
            that no head has.
    """

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        path = data[self.keys[0]]
        name = path if isinstance(path, str) else data.get("output_name", Path(path[0]).parent)
        if data.get("problem"):
            raise InputError(f"{name} {data['problem']}")
        scan = read_volume(path)
        if data.get("notes"):
            scan.meta["scan_warnings"] = [*scan.meta.get("scan_warnings", []), *data["notes"]]
        values = scan.as_tensor()
        if not torch.isfinite(values).any():
            raise InputError(f"{name} has no finite voxel; the file is damaged, convert it anew")
        if not _many_values(values, 200_000) and not _many_values(values, values.numel()):
            raise InputError(f"{name} has almost no different values: it is a mask, a label map or empty, not a scan")
        extent = np.linalg.norm(np.asarray(scan.affine)[:3, :3], axis=0) * scan.shape[1:]
        if extent.min() < SMALLEST_HEAD or extent.max() > LARGEST_HEAD:
            raise InputError(
                f"{name} covers {' x '.join(f'{e:.0f}' for e in extent)} mm, which is not a head; "
                "check the voxel size in its header, or leave the file out"
            )
        values, hot = without_hot_voxels(values)
        if hot:
            told = f"{hot} single voxels far outside of the range of the scan were replaced by the median of their neighbours"
            scan.meta["scan_warnings"] = [*(scan.meta.get("scan_warnings") or []), told]
        meta = {**scan.meta, "filename_or_obj": data.get("output_name", name)}
        return {**data, self.keys[0]: MetaTensor(values, meta=meta)}


def _many_values(values: torch.Tensor, samples: int) -> bool:
    chosen = values.flatten()[:: max(1, values.numel() // samples)]
    return len(torch.unique(chosen[torch.isfinite(chosen)])) >= LEVELS


class AlignToRAS(Transform):
    """Resample a scan of any orientation, also oblique or sheared, to a grid along the axes of RAS world coordinates.

    World coordinates stay what they are, so that results return to the scan's own grid by the two affines alone.

    Args:
        voxel_size: edge of the cubic voxels, mm. Where the scan is finer, it is smoothed first, so that nothing aliases;
            where it is coarser (thick slices), it is interpolated linearly, which invents no over- or undershoot.

    Returns (of a call):
        float32 ``(1, X, Y, Z)`` over the bounding box of the scan.
    """

    def __init__(self, voxel_size: float) -> None:
        self.voxel_size = float(voxel_size)
        self.resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True, dtype=torch.float32)

    def __call__(self, img: MetaTensor) -> MetaTensor:
        affine = img.affine.double().cpu().numpy()
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in img.shape[1:]])).reshape(3, -1)
        world = affine[:3, :3] @ corners + affine[:3, 3:]
        low, high = world.min(axis=1), world.max(axis=1)
        volume, affine = self._averaged(img.as_tensor().float(), affine)
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        # The new voxel averages over its size; what the old voxel has averaged already is left out.
        widths = np.sqrt(np.maximum(self.voxel_size**2 - sizes**2, 0.0) / 12.0) / sizes
        background = volume.min()
        volume = volume - background
        if widths.max() > 0:
            volume = GaussianFilter(3, [max(float(w), 1e-3) for w in widths], truncated=3.0)(volume[None])[0]
        target = np.diag([self.voxel_size] * 3 + [1.0])
        target[:3, 3] = low + 0.5 * self.voxel_size
        shape = np.maximum(1, np.round((high - low) / self.voxel_size)).astype(int)
        aligned = self.resample(
            MetaTensor(volume, affine=torch.as_tensor(affine)), dst_affine=torch.as_tensor(target), spatial_size=shape
        )
        result = MetaTensor(aligned.as_tensor() + background, meta=dict(img.meta))
        result.affine = aligned.affine
        return result

    def _averaged(self, volume: torch.Tensor, affine: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """A scan that is more than twice as fine as wanted, averaged over whole voxels to what is at least twice as fine: filtering
        and resampling voxels of 0.4 mm takes gigabytes and half a minute."""
        factors = np.maximum(self.voxel_size / 2.0 // np.linalg.norm(affine[:3, :3], axis=0), 1.0)
        if factors.max() == 1.0:
            return volume, affine
        kernel = tuple(int(f) for f in factors)
        averaged = affine @ np.diag([*factors, 1.0])
        averaged[:3, 3] = affine[:3, 3] + affine[:3, :3] @ (factors - 1.0) / 2.0
        return avg_pool3d(volume, kernel, kernel, ceil_mode=True, count_include_pad=False), averaged


class AlignToRASd(MapTransform):
    """Dictionary form of `AlignToRAS`."""

    def __init__(self, keys: KeysCollection, voxel_size: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.align = AlignToRAS(voxel_size)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.align(d[key])
        return d
