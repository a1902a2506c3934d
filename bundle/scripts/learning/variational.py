"""Variational autoencoders: their loss, their mean reconstruction, and the gradient of their loss as a score."""

from __future__ import annotations

import torch
from monai.inferers import Inferer
from torch import nn

__all__ = ["ElboGradientInferer", "ElboLoss", "SamplingInferer"]


class ElboLoss(nn.Module):
    """The error of the reconstruction and the Kullback-Leibler divergence of the code from the standard normal distribution.

    Args:
        beta: weight of the divergence, per pixel; 0 makes a plain autoencoder of it.
        deviations: whether the network gives the standard deviation of the code, as MONAI's `AutoencoderKL` does, and not the
            logarithm of its variance, as `VarAutoEncoder` does.
        power: of the error: 1, or 2; the gradient of 2 grows with the error.
    """

    def __init__(self, beta: float, deviations: bool = False, power: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.deviations = deviations
        self.power = power

    def forward(self, found: tuple[torch.Tensor, ...], image: torch.Tensor) -> torch.Tensor:
        reconstruction, mean, spread = found[:3]
        log_variance = 2.0 * spread.clamp(min=1e-6).log() if self.deviations else spread
        divergence = -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp())
        error = (reconstruction - image).abs().pow(self.power).mean()
        return error + self.beta * divergence.flatten(1).sum(dim=1).mean() / image[0].numel()


class ElboGradientInferer(Inferer):
    """The size of the gradient of the loss by the image: where the image would have to change to become likelier.

    Args:
        loss: see `ElboLoss`.

    References:
        D. Zimmerer et al., Unsupervised Anomaly Localization using Variational Auto-Encoders, MICCAI 2019.
    """

    def __init__(self, loss: ElboLoss) -> None:
        self.loss = loss

    def __call__(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        with torch.enable_grad():
            image = inputs.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.loss(network(image), image) * image.numel(), image)
        return slope.abs()


class SamplingInferer(Inferer):
    """Several reconstructions of a slice, of codes that are drawn around its own, as channels.

    Args:
        samples: how many.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __call__(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        mean, log_variance = network.encode_forward(inputs)
        random = torch.Generator(mean.device).manual_seed(0)
        noise = torch.randn((self.samples, *mean.shape), generator=random, device=mean.device)
        return torch.cat([network.decode_forward(mean + e * (0.5 * log_variance).exp()) for e in noise], dim=1)
