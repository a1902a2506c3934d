"""Read one volume from a file or a DICOM series, or say why it cannot be one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, ResampleToMatch, Spacing
from monai.utils import optional_import

from .dicom import read_pixels, stack_geometry
from .errors import InputError

itk, _ = optional_import("itk")  # a training on packed subjects has no need of it

__all__ = [
    "VOLUME_ENDINGS",
    "FinerGridd",
    "OnGridd",
    "at_partners",
    "on_grid",
    "read_volume",
    "same_grid",
    "volume_stem",
    "voxel_ml",
    "without_header",
]

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd")
# MONAI says at every read that a decoder of NVIDIA's is not installed, which none of these formats needs.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
FORMS_APART = 1.0  # mm
SLAB = 8_000_000  # voxels that are resampled at once
SMALLEST_VOXEL, LARGEST_VOXEL = 0.05, 30.0  # mm


def volume_stem(path: str | Path) -> str:
    """File name without the ending of its format."""
    name = Path(path).name
    ending = next((e for e in VOLUME_ENDINGS if name.lower().endswith(e)), Path(name).suffix)
    return name[: len(name) - len(ending)] if ending else name


def _two_geometries(path: Path, header: nib.Nifti1Header) -> str | None:
    """What to say when the two forms of a NIfTI file place the head at different points, else None."""
    if not isinstance(header, nib.Nifti1Header) or header["qform_code"] == 0 or header["sform_code"] == 0:
        return None
    ends = np.array([[0, 0, 0, 1], [*(np.array(header.get_data_shape()[:3]) - 1), 1]]).T
    apart = np.abs((header.get_qform() - header.get_sform()) @ ends).max()
    if apart <= FORMS_APART:
        return None
    return f"{path.name}: qform and sform place its corners {apart:.1f} mm apart; the sform is used, both are kept in the results"


def _read(path: Path | Sequence[Path]) -> MetaTensor:
    if not isinstance(path, Path):
        affine, order = stack_geometry(path)
        slices = read_pixels(path)
        if slices is None:
            image = itk.imread(str(path[0]) if len(path) == 1 else [str(slice_) for slice_ in path], itk.F)
            slices = itk.array_from_image(image)
        values = slices.transpose(2, 1, 0)[:, :, order]
        return MetaTensor(torch.from_numpy(np.ascontiguousarray(values))[None], affine=torch.from_numpy(affine))
    if path.name.lower().endswith((".nii", ".nii.gz", ".mgz", ".mgh")):
        # nibabel reads it, since ITK refuses sheared affines and its wheel cannot read .mgz.
        header = nib.load(path).header
        if header.get_data_dtype().names:
            raise InputError(f"{path} is a colour image, not a scan; give the scan itself")
        if isinstance(header, nib.Nifti1Header) and header["qform_code"] == 0 and header["sform_code"] == 0:
            raise InputError(
                f"{path} has no affine (neither qform nor sform): nothing says which way the head lies; "
                "convert it anew from DICOM, or set its sform"
            )
        volume = LoadImage("NibabelReader", image_only=True, ensure_channel_first=True, dtype="float32")(path)
        if warning := _two_geometries(path, header):
            volume.meta["scan_warnings"] = [warning]
        return volume
    return LoadImage(image_only=True, ensure_channel_first=True, dtype="float32")(path)


def read_volume(path: str | Path | Sequence[str | Path]) -> MetaTensor:
    """Load a 3D volume as float32 ``(1, X, Y, Z)`` with its affine to RAS mm.

    A 4D file with one volume counts as 3D.

    Args:
        path: file, or the slices of one DICOM series from one end to the other.

    Raises:
        InputError: when the file is missing, unreadable, not one 3D scan, or has no usable geometry.
    """
    source = Path(path) if isinstance(path, (str, Path)) else [Path(p) for p in path]
    name = source if isinstance(source, Path) else source[0].parent
    if not name.exists():
        raise InputError(f"{name} does not exist; check the path or the datalist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = _read(source)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name} cannot be read as an image, it may be damaged or of another type; replace it"
        ) from error
    volume = volume[..., 0] if volume.ndim == 5 and volume.shape[-1] == 1 else volume
    if (volume.ndim == 4 and volume.shape[0] > 1) or volume.ndim == 5:
        count = volume.shape[0] if volume.ndim == 4 else volume.shape[-1]
        raise InputError(f"{name} holds {count} volumes; is not a 3D volume: extract one, for example the first")
    if volume.ndim != 4 or min(volume.shape[1:]) < 2:
        raise InputError(f"{name} is not a 3D volume, its shape is {tuple(volume.shape)} (channels first); extract one")
    affine = np.asarray(volume.affine, dtype=np.float64)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    flat = abs(np.linalg.det(affine[:3, :3])) < 1e-3 * np.prod(sizes)
    if not np.isfinite(affine).all() or flat or sizes.min() < SMALLEST_VOXEL or sizes.max() > LARGEST_VOXEL:
        raise InputError(
            f"{name} has voxels of {' x '.join(f'{s:.3g}' for s in sizes)} mm{' in one plane' if flat else ''}; "
            "its header is damaged: correct the affine or convert it anew from DICOM"
        )
    return MetaTensor(volume.as_tensor().to(torch.float32), meta=dict(volume.meta))


def same_grid(one: MetaTensor, other: MetaTensor, tolerance: float = 0.01) -> bool:
    """Whether two volumes have one shape and their corners at the same points, within a share of the smallest edge of a voxel."""
    if one.shape != other.shape:
        return False
    corners = torch.cartesian_prod(*(torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in one.shape[1:]))
    apart = one.affine.double() - other.affine.double()
    moved = corners @ apart[:3, :3].T + apart[:3, 3]
    smallest = float(one.affine.double()[:3, :3].norm(dim=0).min())
    return float(moved.norm(dim=1).max()) <= tolerance * smallest


def voxel_ml(volume: MetaTensor) -> float:
    """Volume of a voxel, ml."""
    return float(np.abs(np.linalg.det(np.asarray(volume.affine)[:3, :3]))) / 1000.0


def at_partners(volume: MetaTensor, mirror_transform: np.ndarray, grid: MetaTensor) -> MetaTensor:
    """What a volume has at the contralateral partner of each voxel of a grid.

    Args:
        volume: ``(C, X, Y, Z)``.
        mirror_transform: 4x4 matrix on RAS mm that maps a point to its partner of the other side.
        grid: see `on_grid`.
    """
    back = torch.linalg.inv(torch.as_tensor(np.asarray(mirror_transform), dtype=torch.float64))
    return on_grid(MetaTensor(volume.as_tensor(), affine=back @ volume.affine.double()), grid)


def on_grid(volume: MetaTensor, grid: MetaTensor, mode: str = "bilinear") -> MetaTensor:
    """A volume on the grid of another, 0 outside of its own: MONAI's `ResampleToMatch`, one slab after the other.

    The coordinates of all voxels of a scan of 0.4 mm take 8 GB at once.

    Args:
        volume: ``(C, X, Y, Z)``.
        grid: ``(1, X', Y', Z')``, on any device; its values do not matter.
        mode: of interpolation.

    Returns:
        float32, ``(C, X', Y', Z')``, on the device of the volume, with the meta data of the grid and the name of the volume.
    """
    resample = ResampleToMatch(mode=mode, padding_mode="zeros", dtype=torch.float32)
    plain = without_header(volume)  # MONAI writes the voxel size of the grid into the header that it is given
    # Beyond one voxel outside of its own grid the volume is 0.
    corners = torch.cartesian_prod(*(torch.tensor([-1.0, n], dtype=torch.float64) for n in volume.shape[1:]))
    to_grid = torch.linalg.inv(grid.affine.double()) @ volume.affine.double()
    reached = corners @ to_grid[:3, :3].T + to_grid[:3, 3]
    shape = torch.tensor(grid.shape[1:])
    begin = torch.minimum(reached.amin(dim=0).floor().long().clamp(min=0), shape).tolist()
    end = torch.minimum(reached.amax(dim=0).ceil().long().clamp(min=-1) + 1, shape).tolist()
    found = torch.zeros((volume.shape[0], *grid.shape[1:]), dtype=torch.float32, device=volume.device)
    thickness = max(1, SLAB // max(1, (end[1] - begin[1]) * (end[2] - begin[2])))
    for first in range(begin[0], end[0], thickness):
        box = (
            slice(None),
            slice(first, min(first + thickness, end[0])),
            slice(begin[1], end[1]),
            slice(begin[2], end[2]),
        )
        step = torch.eye(4, dtype=torch.float64)
        step[:3, 3] = torch.tensor([first, begin[1], begin[2]], dtype=torch.float64)
        part = MetaTensor(grid.as_tensor()[box], affine=grid.affine.double() @ step)
        if part.numel():
            found[box] = resample(plain, img_dst=part).as_tensor()
    meta = deepcopy(dict(grid.meta))
    if "filename_or_obj" in volume.meta:
        meta["filename_or_obj"] = volume.meta["filename_or_obj"]
    return MetaTensor(found, meta=meta)


class OnGridd(MapTransform):
    """Dictionary version of `on_grid`. What lies on the grid stays as it is.

    Args:
        keys: volumes.
        grid_key: volume that gives the grid.
        mode: of interpolation.
        allow_missing_keys: leave out what is not there.
    """

    def __init__(
        self, keys: KeysCollection, grid_key: str, mode: str = "bilinear", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.grid_key = grid_key
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if not same_grid(d[key], d[self.grid_key]):
                d[key] = on_grid(d[key], d[self.grid_key], self.mode)
        return d


def without_header(volume: MetaTensor) -> MetaTensor:
    """The same values and affine with meta data of their own: MONAI's `Spacing` writes into those that it is given."""
    return MetaTensor(volume.as_tensor(), affine=volume.affine)


class FinerGridd(MapTransform):
    """Interpolate volumes to voxels no larger than wanted, by cubic splines. An axis that is fine enough stays as it is.

    Args:
        keys: volumes ``(1, X, Y, Z)``.
        spacing: mm, of the largest voxel wanted; None leaves the volumes as they are.

    Returns:
        the volumes without the header of their file, which tells of another grid.

    Raises:
        InputError: when there can be no such voxel.
    """

    def __init__(self, keys: KeysCollection, spacing: float | None) -> None:
        super().__init__(keys)
        self.finer = None
        if spacing is not None:
            if isinstance(spacing, (str, bool)) or not SMALLEST_VOXEL <= spacing <= LARGEST_VOXEL:
                raise InputError(
                    f"voxels of {spacing!r} mm are not possible; give {SMALLEST_VOXEL} to {LARGEST_VOXEL:.0f} mm, such as 1.0"
                )
            size = [float(spacing)] * 3
            self.finer = Spacing(size, max_pixdim=size, min_pixdim=[0.0] * 3, mode=3, padding_mode="nearest")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.finer else ():
            # One voxel without a value would spread through the spline, which may also leave the range of the scan.
            known = without_header(d[key]).nan_to_num(0.0, 0.0, 0.0)
            finer = self.finer(known).clamp(known.min(), known.max())
            kept = {name: d[key].meta[name] for name in ("filename_or_obj", "scan_warnings") if name in d[key].meta}
            d[key] = MetaTensor(finer.as_tensor().float(), affine=finer.affine, meta=kept)
        return d
