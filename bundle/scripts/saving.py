"""Files that appear whole or not at all, and volumes that keep the header of the scan they belong to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal.igzip import IGzipFile
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import create_file_basename
from monai.transforms import MapTransform

from .errors import InputError

__all__ = ["SaveVolumed", "file_hash", "output_base", "save_volume", "whole_file", "write_whole"]

GEOMETRY = ("qform_code", "sform_code", "xyzt_units", "pixdim", "quatern_b", "quatern_c", "quatern_d")
GEOMETRY += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


def file_hash(path: str | Path) -> str:
    """SHA-256 of the content of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write to, with the same ending; it takes the place of `path` when the block ends without an error.

    A kill, a full disk or an error leaves the old file, or none, under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, see `whole_file`."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")  # names may be of another encoding


def save_volume(volume: MetaTensor, path: str | Path, dtype: Any, like: MetaTensor | None = None) -> None:
    """Write ``(1, X, Y, Z)`` as compressed NIfTI, see `whole_file`.

    Args:
        volume: with its affine to RAS mm.
        path: of the file, ``.nii.gz``.
        dtype: NumPy type of the voxels; integers are rounded.
        like: a scan on the same grid as it was read; units, form codes and both forms of a NIfTI file are kept.
    """
    values = np.asarray(volume[0].cpu())
    values = np.round(values) if np.issubdtype(np.dtype(dtype), np.integer) else values
    values = values.astype(dtype, copy=False)
    image = nib.Nifti1Image(values, np.asarray(volume.affine, dtype=np.float64))
    image.header.set_xyzt_units("mm")
    known = {} if like is None else like.meta
    if all(name in known for name in GEOMETRY):
        for name in GEOMETRY:
            image.header[name] = np.asarray(known[name]).reshape(image.header[name].shape)
        image = nib.Nifti1Image(values, None, image.header)
    # nibabel compresses with zlib, which takes most of the time of a scan of 0.4 mm; this is the same format, 20 times as fast.
    # Neither name nor time stand in the file, so that equal volumes are equal files.
    packing = {"filename": "", "mode": "wb", "compresslevel": 1, "mtime": 0}
    with whole_file(path) as partial, partial.open("wb") as stream, IGzipFile(fileobj=stream, **packing) as packed:
        image.to_stream(packed)


def output_base(source: str, postfix: str, output_dir: str | Path, data_root_dir: str) -> Path:
    """Path of a result without its ending: named after the scan, in the sub-folder that the scan has below the folder of the
    inputs.

    Raises:
        InputError: when that would lie outside of `output_dir`.
    """
    base = Path(create_file_basename(postfix, source, str(output_dir), data_root_dir, separate_folder=False))
    inside, folder = Path(os.path.normpath(base.absolute())), Path(os.path.normpath(Path(output_dir).absolute()))
    if folder not in inside.parents:
        raise InputError(
            f"the results of {source} would be written to {inside}, outside of {folder}; give the scan's own folder as --input"
        )
    return base


class SaveVolumed(MapTransform):
    """Write volumes as ``<scan>_<postfix>.nii.gz`` on the grid and with the header of their scan.

    Args:
        keys: volumes ``(1, X, Y, Z)``.
        postfix: ending of the name.
        output_dir: where to write.
        data_root_dir: folder of the inputs; its sub-folders are kept below `output_dir`.
        source_key: the scan, as it was read.
        dtype: NumPy type of the voxels.
        allow_missing_keys: write nothing of what a method does not give.
    """

    def __init__(
        self,
        keys: KeysCollection,
        postfix: str,
        output_dir: str | Path,
        data_root_dir: str = "",
        source_key: str = "original",
        dtype: str = "float32",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.postfix = postfix
        self.output_dir = output_dir
        self.data_root_dir = data_root_dir
        self.source_key = source_key
        self.dtype = dtype

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        source = data[self.source_key]
        for key in self.key_iterator(dict(data)):
            base = output_base(str(source.meta["filename_or_obj"]), self.postfix, self.output_dir, self.data_root_dir)
            save_volume(data[key], f"{base}.nii.gz", np.dtype(self.dtype), like=source)
        return dict(data)
