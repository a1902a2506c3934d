"""f-AnoGAN: a generator of healthy slices, a critic, and an encoder that finds the code of a slice."""

from __future__ import annotations

import torch
from torch import autograd, nn

__all__ = ["CodedGenerator", "CriticLoss", "EncoderLoss"]


class CodedGenerator(nn.Module):
    """The slice that the generator draws from the code which the encoder finds.

    Args:
        generator: code ``(B, latent)`` to slice ``(B, 1, X, Y)`` in [0, 1] (MONAI `Generator` and a sigmoid).
        encoder: slice to code (MONAI `Regressor`).
    """

    def __init__(self, generator: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.encoder = encoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        # Codes were drawn from a normal distribution: those of the encoder stay where there were any.
        return self.generator(3.0 * torch.tanh(self.encoder(image)))


class CriticLoss(nn.Module):
    """The loss of a Wasserstein critic with a gradient penalty, called with (fakes, reals) as MONAI's `GanTrainer` does.

    Args:
        critic: slice to a number (MONAI `Critic`).
        penalty: weight of the gradient penalty.

    References:
        I. Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017.
    """

    def __init__(self, critic: nn.Module, penalty: float = 10.0) -> None:
        super().__init__()
        self.critic = critic
        self.penalty = penalty

    def forward(self, fakes: torch.Tensor, reals: torch.Tensor) -> torch.Tensor:
        fakes = fakes.detach()
        share = torch.rand(len(reals), 1, 1, 1, device=reals.device)
        between = torch.lerp(reals, fakes, share).requires_grad_(True)
        (slope,) = autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1.0).square().mean()
        return self.critic(fakes).mean() - self.critic(reals).mean() + self.penalty * penalty


class EncoderLoss(nn.Module):
    """izi_f: the drawn slice must look like the slice, and the critic must see the same in both.

    Args:
        critic: a MONAI `Critic`; its inner features are compared.
        weight: of the features.

    References:
        T. Schlegl et al., f-AnoGAN, Medical Image Analysis 54, 2019.
    """

    def __init__(self, critic: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.critic = critic
        self.weight = weight

    def forward(self, drawn: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        seen = (self.critic.net(drawn) - self.critic.net(image)).square().mean()
        return (drawn - image).square().mean() + self.weight * seen
