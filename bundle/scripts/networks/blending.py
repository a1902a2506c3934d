"""UNA's network: a UNet that decides, in every voxel, how much of each source the healthy brain takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import DynUNet
from torch import nn

__all__ = ["BlendingUNet"]


class BlendingUNet(nn.Module):
    """Blend the input channels and a constant into healthy images, with weights that a UNet gives to every voxel.

    The paper's UNet draws the whole brain anew. This one only decides what to keep: healthy tissue passes, a lesion is filled
    from the mirrored partner, what neither shows is drawn by the weight of the constant, and a T2w turns into a T1w by a negative
    weight. The channels of the output are

    0. the healthy T1w (paper), a blend of all sources;
    1. the *intact* scan: the input scan without its anomaly, in its own contrast. Not in the paper.

    Both are blends with weights of their own. The intact scan must not begin as the scan itself: with L1, a network that
    copies stays one (after 800 iterations it had changed nothing in any lesion); it begins best as the healthy T1w.

    A T2w is no multiple of a T1w: fluid is bright, gray matter between it and white matter. Powers of the scan are sources, too, so
    that the weights make a curve of it (`powers`), which may change slowly from place to place.

    The UNet (MONAI's residual `DynUNet`, group norm and leaky ReLU as in the paper) looks at blocks of ``fold^3`` voxels, which
    costs a third of the time at the same detail.

    Args:
        in_channels: input channels, the scan first [paper: 2, the scan and its mirrored partner].
        features: of the UNet's levels, each half as fine as the one before [paper: 64 in the first].
        fold: edge of the blocks, voxels [paper: 1].
        groups: of the group normalization [paper: 8].
        powers: highest power of the scan among the sources [paper: a UNet that draws].

    Shape:
        ``(B, in_channels, X, Y, Z)`` to ``(B, 2, X, Y, Z)``; X, Y, Z are multiples of ``fold * 2^(len(features) - 1)``.
    """

    def __init__(
        self,
        in_channels: int = 2,
        features: Sequence[int] = (32, 64, 128, 256),
        fold: int = 2,
        groups: int = 8,
        powers: int = 3,
    ) -> None:
        super().__init__()
        self.powers = powers
        seen, self.sources = in_channels + 1, in_channels + powers
        levels, folded, weights = len(features), seen * fold**3, 2 * self.sources * fold**3
        self.with_constant = nn.ConstantPad3d((0, 0, 0, 0, 0, 0, 0, 1), 1.0)
        self.fold_in = nn.Conv3d(seen, folded, fold, stride=fold, bias=False)
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=folded,
            out_channels=weights,
            filters=list(features),
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            res_block=True,
            act_name=("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
            norm_name=("group", {"num_groups": groups}),
        )
        self.fold_out = nn.ConvTranspose3d(weights, 2 * self.sources, fold, stride=fold, bias=False)
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sources = self.with_constant(x)
        weights = self.fold_out(self.unet(self.fold_in(sources)))
        power = x[:, :1]
        for _ in range(self.powers - 1):  # a plain loop, which TorchScript takes
            power = power * x[:, :1]
            sources = torch.cat([sources, power], dim=1)
        images = [(part * sources).sum(dim=1, keepdim=True) for part in weights.split(self.sources, dim=1)]
        return torch.cat(images, dim=1) + self.bias.view(1, 2, 1, 1, 1)
