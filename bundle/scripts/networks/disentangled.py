"""Disentangled anatomy: what lies where, what it looks like, and the healthy brain that its edges alone tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.networks.blocks import Convolution
from skimage.feature import canny
from torch import nn

__all__ = ["Combiner", "DisentangledAnatomy", "ModalityEncoder", "anatomy_encoder", "canny_edges", "straight_through"]


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


def anatomy_encoder(tissues: int, channels: Sequence[int]) -> nn.Sequential:
    """From the tissue map to the anatomy code: a convolution at full resolution for each number of channels, the last linear."""
    inputs = [tissues, *channels[:-1]]
    return nn.Sequential(
        *(
            Convolution(3, i, o, norm=None, act="leakyrelu", conv_only=n == len(channels) - 1)
            for n, (i, o) in enumerate(zip(inputs, channels, strict=True))
        )
    )


class ModalityEncoder(nn.Module):
    """What a scan looks like, wherever it is: a vector without a place, made of the mean features of each tissue.

    With means over the whole brain, which are much alike in all contrasts, the combiner learned to do without the vector.

    Args:
        channels: of convolutions, the first of which halves the grid.
        size: of the vector.
        tissues: number of them, background included.

    Shape:
        scans ``(B, 1, X, Y, Z)`` and their tissue probabilities ``(B, tissues, X, Y, Z)`` to ``(B, size)``.
    """

    def __init__(self, channels: Sequence[int] = (16, 32), size: int = 16, tissues: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(
                Convolution(3, i, o, strides=2 if n == 0 else 1, norm=None, act="leakyrelu")
                for n, (i, o) in enumerate(zip([1, *channels[:-1]], channels, strict=True))
            )
        )
        self.vector = nn.Linear(tissues * channels[-1], size)
        for module in self.modules():
            # With torch's own start the vectors of all contrasts would be one up to a hundredth.
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
                nn.init.zeros_(module.bias)

    def forward(self, scan: torch.Tensor, tissues: torch.Tensor) -> torch.Tensor:
        features = self.features(scan)
        # What a scan looks like is not to teach what lies where.
        share = nn.functional.interpolate(tissues.detach(), features.shape[2:], mode="area").to(features.dtype)
        means = torch.einsum("bcxyz,btxyz->btc", features, share) / share.sum(dim=(2, 3, 4)).clamp(min=1.0)[..., None]
        return self.vector(means.flatten(1))


class Combiner(nn.Module):
    """Draw a scan from an anatomy code and a modality vector.

    A UNet looks at the code alone; the vector then scales and shifts its features (FiLM) before each of two convolutions of single
    voxels. So one look at an anatomy serves all contrasts, and no contrast can move an edge.

    Args:
        trunk: ``(B, code, X, Y, Z)`` to ``(B, features, X, Y, Z)``.
        features: of the trunk's result.
        vector: size of the modality vector.

    Shape:
        codes ``(B, code, X, Y, Z)`` and vectors ``(B, vector)`` to ``(B, 1, X, Y, Z)`` in [0, 1].

    References:
        E. Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, AAAI 2018.
    """

    def __init__(self, trunk: nn.Module, features: int, vector: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.films = nn.ModuleList(nn.Linear(vector, 2 * features) for _ in range(2))
        self.mix = nn.Conv3d(features, features, 1)
        self.draw = nn.Conv3d(features, 1, 1)

    def shade(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """The scan of one contrast, from what the trunk made of the code."""
        for film, layer in zip(self.films, (self.mix, self.draw), strict=True):
            scale, shift = film(vector)[..., None, None, None].chunk(2, dim=1)
            features = layer(nn.functional.leaky_relu(features * (1.0 + scale) + shift, 0.1))
        return torch.sigmoid(features)

    def forward(self, code: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return self.shade(self.trunk(code), vector)


class DisentangledAnatomy(nn.Module):
    """The healthy scan after the edges of a scan's anatomy, in the contrast of the scan.

    A scan becomes a tissue map (`anatomy`) and a modality vector (`looks`). Only the edges of the tissue map reach the
    *restorer*, which guesses the code of the healthy anatomy; the *combiner* draws it with the vector of the scan. After Yang
    et al.; no reproduction, since neither equations nor code are public: what ``methods/disentangled.yaml`` marks with [P] is ours.

    Args:
        extractor: scan to the logits of background, CSF, gray and white matter.
        encoder: one-hot tissue map to the anatomy code.
        modality: see `ModalityEncoder`.
        combiner: see `Combiner`.
        restorer: edges, ``(B, 1, X, Y, Z)``, to the anatomy code.
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
        modality: ModalityEncoder,
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
        self.register_buffer("usual_vector", torch.zeros(modality.vector.out_features))
        self.canny = {"sigma": sigma, "low": low, "high": high}
        self.source = source
        self.reuse_modality = reuse_modality

    def anatomy(self, scan: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One-hot tissue map and tissue probabilities, see `straight_through`."""
        return straight_through(self.extractor(scan))

    def looks(self, scan: torch.Tensor) -> torch.Tensor:
        """The modality vector of a scan."""
        return self.modality(scan, self.anatomy(scan)[1])

    def edges(self, scan: torch.Tensor) -> torch.Tensor:
        """What the restorer is shown of a scan, without a gradient."""
        with torch.no_grad():
            hard, _ = self.anatomy(scan)
            image = torch.einsum("bt...,t->b...", hard, self.levels)[:, None]
        return canny_edges(image, **self.canny) if self.source == "edges" else image

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        vector = self.looks(scan) if self.reuse_modality else self.usual_vector.expand(len(scan), -1)
        return self.combiner(self.restorer(self.edges(scan)), vector)
