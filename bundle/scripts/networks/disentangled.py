"""Disentangled anatomy: what lies where, what it looks like, and the healthy brain that its edges alone tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.networks.blocks import Convolution
from skimage.feature import canny
from torch import nn
from torch.nn.functional import pad

from ..neighbourhood import largest_nearby

__all__ = ["AnatomyEncoder", "Combiner", "DisentangledAnatomy", "ModalityVector", "canny_edges", "straight_through"]


def straight_through(logits: torch.Tensor, temperature: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """The tissue of each voxel, as exact zeros and ones with the gradient of a softmax.

    Args:
        logits: ``(B, tissues, ...)``.
        temperature: of the softmax.

    Returns:
        one-hot map and probabilities, both of the shape of `logits`.

    References:
        Y. Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013. Yang et al. binarize
        differentiably, and do not say how.
    """
    soft = torch.softmax(logits.float() / temperature, dim=1)
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return hard + (soft - soft.detach()), soft


def canny_edges(levels: torch.Tensor, sigma: float, low: float, high: float) -> torch.Tensor:
    """Canny edges of every axial slice, 0 or 1; there is no gradient.

    Args:
        levels: ``(B, 1, X, Y, Z)`` in [0, 1].
        sigma: of the Gaussian filter, voxels.
        low, high: thresholds of the gradient by Sobel's filter.
    """
    volumes = levels.detach().float().cpu().numpy()[:, 0]
    found = np.stack(
        [
            np.stack([canny(volume[..., z], sigma, low, high) for z in range(volume.shape[-1])], axis=-1)
            for volume in volumes
        ]
    )
    return torch.from_numpy(found)[:, None].to(levels.device, torch.float32)


class AnatomyEncoder(nn.Module):
    """From the tissue map to the anatomy code: the map itself, and what convolutions at full resolution make of it.

    The code holds the map, so that whoever reads the code need not learn it again, and who must guess the code must guess the map.

    Args:
        tissues: of the map, background included.
        channels: of the convolutions; the last is linear.

    Shape:
        ``(B, tissues, X, Y, Z)`` to ``(B, tissues + channels[-1], X, Y, Z)``.
    """

    def __init__(self, tissues: int, channels: Sequence[int]) -> None:
        super().__init__()
        inputs = [tissues, *channels[:-1]]
        self.convolutions = nn.Sequential(
            *(
                Convolution(3, i, o, norm=None, act="leakyrelu", conv_only=n == len(channels) - 1)
                for n, (i, o) in enumerate(zip(inputs, channels, strict=True))
            )
        )

    def forward(self, tissues: torch.Tensor) -> torch.Tensor:
        return torch.cat([tissues, self.convolutions(tissues)], dim=1)


class ModalityVector(nn.Module):
    """What a scan looks like, wherever it is: mean and standard deviation of the intensities of each tissue, background left out.

    It is measured, not learned. Networks that learned it told no contrast from another after 300 steps, neither from means over
    the brain nor from mean features of the tissues, and the combiner did without them.

    Only voxels that are surely of a tissue and lie deep count, where there are any: on the surface of the brain a voxel is half
    air, and CSF, of which much lies there, would look dark in a T2w.

    Args:
        depth: voxels from the nearest background, along the axes and their diagonals.
        sure: least probability of a tissue.

    Shape:
        scans ``(B, 1, X, Y, Z)`` and their tissue probabilities ``(B, tissues, X, Y, Z)`` to ``(B, 2 (tissues - 1))``.
    """

    def __init__(self, depth: int = 0, sure: float = 0.0) -> None:
        super().__init__()
        self.depth = depth
        self.sure = sure

    def counted(self, tissues: torch.Tensor) -> torch.Tensor:
        """Weight of every voxel in the mean of each tissue, background left out."""
        air, share = largest_nearby(tissues[:, :1], self.depth), tissues[:, 1:]
        chosen = share * (share > self.sure) * (air < 0.5)
        return torch.where(chosen.sum(dim=(2, 3, 4), keepdim=True) >= 1.0, chosen, share)

    def forward(self, scan: torch.Tensor, tissues: torch.Tensor) -> torch.Tensor:
        # What a scan looks like is not to teach what lies where.
        share = self.counted(tissues.detach().float())
        weight = share.sum(dim=(2, 3, 4)).clamp(min=1.0)
        mean, square = (
            torch.einsum("bxyz,btxyz->bt", values[:, 0].float(), share) / weight for values in (scan, scan.square())
        )
        return torch.cat([mean, (square - mean.square()).clamp(min=1e-6).sqrt()], dim=1)


class Combiner(nn.Module):
    """Draw a scan from an anatomy code and a modality vector.

    A network looks at the code alone and gives every place its shares of a few *shades*; the vector tells the intensities of the
    shades. So one look at an anatomy serves all contrasts, and no contrast can move an edge. At first every tissue is drawn with
    its own shades, which are spread about its mean intensity as far as its intensities are; the network learns to depart from it.

    Args:
        trunk: ``(B, code, X, Y, Z)`` to ``(B, 1 + tissues * shades, X, Y, Z)``, one number for air and for every shade.
        shades: of each tissue.
        tissues: number of them, background left out. The code begins with the map of background and tissues, and the vector has
            twice as many numbers, see `ModalityVector`.
        spread: the darkest and the lightest shade of a tissue at first, in standard deviations from its mean.
        trust: in the map of the code: the logit that a voxel of a tissue has for the tissue's shades.

    Shape:
        codes ``(B, code, X, Y, Z)`` and vectors ``(B, 2 tissues)`` to ``(B, 1, X, Y, Z)``.
    """

    def __init__(
        self, trunk: nn.Module, shades: int, tissues: int = 3, spread: float = 1.5, trust: float = 5.0
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.trust = trust
        of_shade = torch.arange(tissues).repeat_interleave(shades)
        self.register_buffer("channels", pad(of_shade + 1, (1, 0)), persistent=False)
        self.palette = nn.Linear(2 * tissues, tissues * shades)
        with torch.no_grad():
            self.palette.bias.zero_()
            self.palette.weight.zero_()
            at = torch.arange(tissues * shades)
            self.palette.weight[at, of_shade] = 1.0
            self.palette.weight[at, tissues + of_shade] = torch.linspace(-spread, spread, shades).repeat(tissues)

    def shares(self, code: torch.Tensor) -> torch.Tensor:
        """Of air and of the shades in every place, ``(B, 1 + tissues * shades, X, Y, Z)``; their sum is 1."""
        return torch.softmax(self.trunk(code).float() + self.trust * code[:, self.channels].float(), dim=1)

    def shade(self, shares: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """The scan of one contrast. Air is black."""
        return torch.einsum("bsxyz,bs->bxyz", shares[:, 1:], self.palette(vector).float())[:, None]

    def forward(self, code: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return self.shade(self.shares(code), vector)


class DisentangledAnatomy(nn.Module):
    """The healthy scan after the edges of a scan's anatomy, in the contrast of the scan.

    A scan becomes a tissue map (`anatomy`) and a modality vector (`modality`). Only the edges of the tissue map reach the
    *restorer*, which guesses the tissues of the healthy anatomy; the *combiner* draws their code with the vector of the scan.
    After Yang et al.; no reproduction, since neither equations nor code are public: what ``methods/disentangled.yaml`` marks with
    [P] is ours.

    Args:
        extractor: scan to the logits of background, CSF, gray and white matter.
        encoder: see `AnatomyEncoder`.
        modality: see `ModalityVector`.
        combiner: see `Combiner`.
        restorer: edges, ``(B, 1, X, Y, Z)``, to the logits of the tissues without the lesion.
        levels: of the tissues, in the image whose edges are taken.
        sigma, low, high: see `canny_edges`.
        source: what the restorer is shown: ``edges``, or, to measure what they are worth, the whole image of the ``levels``.
        reuse_modality: draw with the vector of the scan itself; else, to measure what that is worth, with the mean vector of the
            scans of the training.

    Shape:
        ``(B, 1, X, Y, Z)`` in [0, 1] to the same; X, Y and Z are multiples of 16.

    References:
        Yang et al., Unsupervised Anomaly Detection in Brain MRI via Disentangled Anatomy Learning, Medical Image Analysis 109,
        2026.
    """

    def __init__(
        self,
        extractor: nn.Module,
        encoder: nn.Module,
        modality: ModalityVector,
        combiner: Combiner,
        restorer: nn.Module,
        levels: Sequence[float] = (0.0, 0.29, 0.48, 0.72),
        sigma: float = 1.0,
        low: float = 0.1,
        high: float = 0.2,
        source: str = "edges",
        reuse_modality: bool = True,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.encoder = encoder
        self.modality = modality
        self.combiner = combiner
        self.restorer = restorer
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("usual_vector", torch.zeros(combiner.palette.in_features))
        self.canny = {"sigma": sigma, "low": low, "high": high}
        self.source = source
        self.reuse_modality = reuse_modality

    def anatomy(self, scan: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One-hot tissue map and tissue probabilities, see `straight_through`."""
        return straight_through(self.extractor(scan))

    def edges(self, hard: torch.Tensor) -> torch.Tensor:
        """What the restorer is shown of a one-hot tissue map, without a gradient."""
        image = torch.einsum("bt...,t->b...", hard.detach(), self.levels)[:, None]
        return canny_edges(image, **self.canny) if self.source == "edges" else image

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        hard, soft = self.anatomy(scan)
        healthy, restored = straight_through(self.restorer(self.edges(hard)))
        if self.reuse_modality:
            # Where scan and restoration name different tissues is a lesion, or an error of one of the two.
            vector = self.modality(scan, torch.minimum(soft, restored))
        else:
            vector = self.usual_vector.expand(len(scan), -1)
        return self.combiner(self.encoder(healthy), vector).clamp(0.0, 1.0)
