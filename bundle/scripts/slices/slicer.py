"""From volumes to the 2D slices that a network of images takes, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.transforms import ResizeWithPadOrCrop
from monai.utils import convert_to_tensor

from ..errors import InputError

__all__ = ["AxialSlices", "WholeVolume"]


class WholeVolume:
    """No slices: the volume is one piece, for networks of volumes."""

    def cut(self, volume: torch.Tensor, brain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The volume ``(C, X, Y, Z)`` as a batch of one, and its number."""
        return convert_to_tensor(volume, track_meta=False)[None], torch.zeros(1, dtype=torch.long)

    def stack(self, pieces: torch.Tensor, index: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The inverse of `cut`."""
        return pieces[0]


class AxialSlices:
    """The axial slices that hold some of the brain, padded or cropped to one size around the middle of the volume.

    Args:
        size: of a slice, voxels.

    Raises:
        InputError: by `cut`, when the brain does not fit into a slice.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = tuple(size)

    def cut(self, volume: torch.Tensor, brain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            volume: ``(C, X, Y, Z)`` in RAS.
            brain: mask ``(1, X, Y, Z)``.

        Returns:
            slices ``(N, C, *size)``, and the index of each along z ``(N,)``.
        """
        fit = ResizeWithPadOrCrop((*self.size, -1))
        values, mask = (convert_to_tensor(v, track_meta=False) for v in (volume, brain))
        inside = convert_to_tensor(fit(mask.float()), track_meta=False) > 0
        if int(inside.sum()) < int((mask > 0).sum()):
            raise InputError(
                f"the brain does not fit into slices of {self.size[0]} x {self.size[1]} voxels; set a larger slice_size, and train "
                "the method with it"
            )
        index = inside.flatten(1, 2).any(dim=1)[0].nonzero()[:, 0]
        fitted = convert_to_tensor(fit(values), track_meta=False)
        return fitted[..., index].permute(3, 0, 1, 2).contiguous(), index

    def stack(self, pieces: torch.Tensor, index: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Slices back in their places, 0 where there is none.

        Args:
            pieces: ``(N, C, *size)``.
            index: of each along z.
            shape: ``(X, Y, Z)`` of the volume.

        Returns:
            ``(C, X, Y, Z)``.
        """
        volume = pieces.new_zeros((pieces.shape[1], *self.size, shape[2]))
        volume[..., index.to(pieces.device)] = pieces.permute(1, 2, 3, 0)
        return convert_to_tensor(ResizeWithPadOrCrop((*shape[:2], -1))(volume), track_meta=False)
