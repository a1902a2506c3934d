"""What SimpleSliceNet is made of: features of slices, and a normalizing flow of healthy ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import ActNorm, AllInOneBlock
from monai.networks.blocks import Convolution
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from monai.utils import convert_to_tensor
from torch import nn
from torch.nn.functional import adaptive_avg_pool1d, cosine_similarity, interpolate, unfold

from ..slices import AxialSlices
from .extractor import FeatureExtractor

__all__ = ["ConditionalFlow", "EncoderDecoder", "LocalFeatures", "SliceFeatures", "position_codes"]


class LocalFeatures(nn.Module):
    """Features of 3 x 3 patches of two or more blocks on the grid of the first, pooled to one vector a place.

    Args:
        extractor: see `FeatureExtractor`.
        size: of a vector, d [paper: 1024, its code: 512].

    Shape:
        ``(N, 1, X, Y)`` to ``(N, size, x, y)``.

    References:
        Z. Liu et al., SimpleNet, CVPR 2023, whose pooling of channels this is.
    """

    def __init__(self, extractor: FeatureExtractor, size: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.size = size

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        pooled, grid = [], None
        for level in self.extractor(slices):
            count, _, *size = level.shape
            patches = unfold(level, 3, padding=1).transpose(1, 2)  # (N, places, channels * 9)
            vectors = adaptive_avg_pool1d(patches, self.size).transpose(1, 2).reshape(count, self.size, *size)
            grid = grid or size
            pooled.append(interpolate(vectors, grid, mode="bilinear", align_corners=False))
        places = torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)
        return adaptive_avg_pool1d(places, self.size).transpose(1, 2).reshape(len(slices), self.size, *grid)


class SliceFeatures(nn.Module):
    """Features of a volume: those of its axial slices, averaged over neighbours.

    Args:
        local: see `LocalFeatures`.
        slicer: cuts the slices.
        depth: slices that are averaged [paper: 3]; 1 is the ablation without an aggregation.
        batch_size: slices at once.
    """

    def __init__(self, local: LocalFeatures, slicer: AxialSlices, depth: int = 3, batch_size: int = 16) -> None:
        super().__init__()
        self.local = local
        self.slicer = slicer
        self.depth = depth
        self.batch_size = batch_size

    def _pool(self, slices: torch.Tensor) -> torch.Tensor:
        """``(N, C, x, y)`` to ``(C, x, y, z)``, the mean of each `depth` slices; the last may be of fewer."""
        groups = slices.split(self.depth)
        return torch.stack([group.mean(dim=0) for group in groups], dim=-1)

    @torch.no_grad()
    def forward(self, scan: torch.Tensor, *masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Args:
            scan: ``(1, X, Y, Z)``.
            masks: ``(1, X, Y, Z)``, the brain first.

        Returns:
            features ``(size, x, y, z)`` on the CPU, the share of each mask in every place, ``(1, x, y, z)``, and the index of the
            slices along Z.
        """
        self.eval()
        device = next(self.local.parameters()).device
        both = torch.cat([convert_to_tensor(v, track_meta=False).float() for v in (scan, *masks)])
        pieces, index = self.slicer.cut(both, masks[0])
        features = torch.cat([self.local(part[:, :1].to(device)).cpu() for part in pieces.split(self.batch_size)])
        shares = self._pool(interpolate(pieces[:, 1:], features.shape[2:], mode="area"))
        return self._pool(features), *shares.split(1), index

    def restore(self, grid: torch.Tensor, index: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Values of the places, ``(1, x, y, z)``, as a volume ``(1, X, Y, Z)``, trilinear; 0 where no slice was looked at."""
        size = (*self.slicer.size, grid.shape[-1] * self.depth)
        volume = interpolate(grid[None], size, mode="trilinear", align_corners=False)[0]
        return self.slicer.stack(volume[..., : len(index)].permute(3, 0, 1, 2), index, shape)


def position_codes(grid: Sequence[int], size: int) -> torch.Tensor:
    """Sines and cosines of the place, ``(x, y, size)`` of a grid of two axes and ``(x, y, z, size)`` of one of three (MONAI's).

    Args:
        grid: places along each axis.
        size: of a code, a multiple of 4 for two axes and of 6 for three [code: 128].
    """
    return build_sincos_position_embedding(list(grid), size, len(grid)).detach().reshape(*grid, size)


class ConditionalFlow(nn.Module):
    """A normalizing flow of feature vectors, given a code: invertible, and its likelihood is exact.

    Affine couplings of FrEIA's `AllInOneBlock`: each leaves half of the vector as it is, which together with the code tells scale
    and shift of the other half; then a scale and shift of every channel, and a fixed random rotation. Before the first, each
    channel is brought to mean 0 and standard deviation 1 of the first vectors that the flow ever sees.

    Args:
        size: of a vector.
        condition: size of a code.
        blocks: couplings [paper: 8].
        clamping: of the logarithm of a coupling's scale [code: 1.9].

    References:
        L. Ardizzone et al., Conditional Invertible Neural Networks, 2019.
    """

    def __init__(self, size: int, condition: int, blocks: int = 8, clamping: float = 1.9) -> None:
        super().__init__()
        self.size = size
        self.flow = SequenceINN(size)
        # Backbones differ in the size of their features by orders of magnitude: the first batch tells the scale.
        self.flow.append(ActNorm)
        for _ in range(blocks):
            self.flow.append(
                AllInOneBlock,
                cond=0,
                cond_shape=(condition,),
                subnet_constructor=lambda i, o: nn.Sequential(nn.Linear(i, i), nn.ReLU(), nn.Linear(i, o)),
                affine_clamping=clamping,
                permute_soft=True,
            )

    def forward(self, vectors: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(N, size)`` and ``(N, condition)`` to normal vectors ``(N, size)`` and the logarithm of the determinant ``(N,)``."""
        return self.flow(vectors, [codes])

    def log_likelihood(self, vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Logarithm of the density of each vector over its size, l, ``(N,)``."""
        normal, log_determinant = self(vectors, codes)
        density = -0.5 * (self.size * math.log(2 * math.pi) + normal.square().sum(dim=1))
        return (density + log_determinant) / self.size


class EncoderDecoder(nn.Module):
    """Tune an extractor to brains: a decoder must find the features of all its blocks from those of the last.

    Args:
        extractor: which is tuned. The features of all blocks but the last are targets, without a gradient, so that it learns
            through the last alone.

    Shape:
        ``(B, 1, X, Y)`` to ``(B,)``: the sum over the blocks of one minus the cosine of both, flattened as one vector each. Its
        mean is the loss.

    References:
        J. Guo et al., Encoder-Decoder Contrast for Unsupervised Anomaly Detection in Medical Images, IEEE TMI 2023.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor = extractor
        with torch.no_grad():
            seen = extractor.eval()(torch.zeros(1, 1, 64, 64))
        widths = [level.shape[1] for level in seen][::-1]
        self.decoder = nn.ModuleList(
            nn.Sequential(
                Convolution(2, i, o, norm="batch", act="relu"), Convolution(2, o, o, norm=None, conv_only=True)
            )
            for i, o in pairwise(widths)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        *targets, drawn = self.extractor(image)
        distance = 0.0
        for layer, target in zip(self.decoder, targets[::-1], strict=True):
            drawn = layer(interpolate(drawn, target.shape[2:], mode="bilinear", align_corners=False))
            distance = distance + 1.0 - cosine_similarity(drawn.flatten(1), target.detach().flatten(1), dim=1)
        return distance
