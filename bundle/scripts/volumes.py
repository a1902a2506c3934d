"""Read one volume from a file, or say why it cannot be one."""

from __future__ import annotations

from pathlib import Path

from monai.data import MetaTensor
from monai.transforms import LoadImage

from .errors import InputError

__all__ = ["read_volume"]


def read_volume(path: str | Path) -> MetaTensor:
    """Load a 3D volume as float32 ``(1, X, Y, Z)`` with its affine to RAS mm.

    Raises:
        InputError: when the file is missing, unreadable or not 3D.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; check the path or the datalist")
    # MONAI hands .mgz to ITK, whose wheel cannot read it.
    reader = "NibabelReader" if str(path).endswith((".mgz", ".mgh")) else None
    try:
        volume = LoadImage(reader, image_only=True, ensure_channel_first=True, dtype="float32")(path)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as an image, it may be damaged or of another type; replace it"
        ) from error
    if volume.ndim != 4 or volume.shape[0] != 1 or min(volume.shape[1:]) < 2:
        raise InputError(f"{path} is not a 3D volume, its shape is {tuple(volume.shape)} (channels first); extract one")
    return volume
