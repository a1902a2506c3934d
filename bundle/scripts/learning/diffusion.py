"""Diffusion models as detectors: noise a scan in part, let the model take the noise away, and see what does not come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from monai.engines.utils import DiffusionPrepareBatch
from monai.inferers import Inferer
from monai.networks.schedulers import Scheduler

from ..fluid.perlin import perlin_noise, random_lattice

__all__ = ["GaussianNoise", "NoisePrepareBatch", "PartialDiffusionInferer", "PerlinNoise"]


class GaussianNoise:
    """Standard normal noise, another value in every voxel."""

    def __call__(self, like: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(tuple(like.shape)).astype(np.float32)).to(like.device)


class PerlinNoise:
    """Perlin noise of several octaves, brought to variance 1: it hides what is as large as its cells.

    Args:
        cells: edges of the lattice cells of the octaves, pixels.
        decay: weight of each octave relative to the one before.

    References:
        J. Wyatt et al., AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using Simplex Noise, CVPRW 2022
        (simplex noise of 6 octaves; Perlin noise is its elder brother on a square lattice).
    """

    def __init__(self, cells: Sequence[float] = (32.0, 16.0, 8.0, 4.0, 2.0), decay: float = 0.8) -> None:
        self.cells = tuple(cells)
        self.decay = decay

    def __call__(self, like: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
        number, channels, *size = like.shape
        total = torch.zeros(number * channels, *size, device=like.device)
        for octave, cell in enumerate(self.cells):
            gradients, origin = random_lattice(random, [n / cell for n in (*size, 1.0)], number * channels)
            axes = [torch.arange(n, device=like.device) / cell + start for n, start in zip((*size, 1), origin)]
            axes[2] = axes[2] * 0.0 + float(origin[2])
            gradients = torch.from_numpy(gradients).float().to(like.device)
            total += self.decay**octave * perlin_noise(gradients, [axis.float() for axis in axes])[..., 0]
        scale = total.flatten(1).std(dim=1).clamp(min=1e-6).reshape(-1, *[1] * len(size))
        return (total / scale).reshape(like.shape)


class NoisePrepareBatch(DiffusionPrepareBatch):
    """MONAI's `DiffusionPrepareBatch` with another noise.

    Args:
        num_train_timesteps: of the scheduler.
        noise: `GaussianNoise` or `PerlinNoise`.
        latent: autoencoder (MONAI `AutoencoderKL`) whose codes are diffused; None for the images themselves.
        scale: factor of the codes.
    """

    def __init__(
        self, num_train_timesteps: int, noise, latent: torch.nn.Module | None = None, scale: float = 1.0
    ) -> None:
        super().__init__(num_train_timesteps)
        self.noise = noise
        self.latent = latent
        self.scale = scale
        self.random = np.random.RandomState(0)

    def get_noise(self, images: torch.Tensor) -> torch.Tensor:
        return self.noise(images, self.random)

    def __call__(self, batchdata: Mapping[str, torch.Tensor], device=None, non_blocking: bool = False, **kwargs):
        if self.latent is not None:
            with torch.no_grad():
                batchdata = {"image": self.latent.eval().encode(batchdata["image"].to(device))[0] * self.scale}
        return super().__call__({"image": batchdata["image"]}, device, non_blocking, **kwargs)


class PartialDiffusionInferer(Inferer):
    """Add noise up to a level, and let the model take it away again, in a few deterministic steps.

    Args:
        scheduler: a MONAI `DDIMScheduler`; it predicts the noise.
        level: share of all time steps at which the scan is noised.
        steps: of the model on the way back.
        noise: `GaussianNoise` or `PerlinNoise`; the same for the same scan.
        scale: factor of the codes, where the network is a latent diffusion model.

    Shape:
        images ``(B, 1, X, Y)`` in [0, 1] to their reconstructions. The network is a diffusion model, or a `ModuleDict` of
        ``diffusion`` and ``autoencoder`` (MONAI `AutoencoderKL`), in whose codes all that happens.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        level: float,
        steps: int,
        noise,
        scale: float = 1.0,
    ) -> None:
        self.scheduler = scheduler
        self.level = level
        self.steps = steps
        self.noise = noise
        self.scale = scale

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        latent = network["autoencoder"] if isinstance(network, torch.nn.ModuleDict) else None
        model = network if latent is None else network["diffusion"]
        code = inputs if latent is None else latent.encode(inputs)[0] * self.scale
        last = int(self.level * (self.scheduler.num_train_timesteps - 1))
        times = np.linspace(last, 0, self.steps + 1).round().astype(int)
        noise = self.noise(code, np.random.RandomState(0))
        first = torch.full((len(code),), int(times[0]), device=code.device, dtype=torch.long)
        noisy = self.scheduler.add_noise(original_samples=code, noise=noise, timesteps=first)
        alphas = self.scheduler.alphas_cumprod.to(code.device)
        for now, after in pairwise(times):
            predicted = model(noisy, timesteps=torch.full((len(code),), int(now), device=code.device, dtype=torch.long))
            clean = (noisy - (1 - alphas[now]).sqrt() * predicted) / alphas[now].sqrt()
            # The last step ends in the clean image itself.
            noisy = clean if after == 0 else alphas[after].sqrt() * clean + (1 - alphas[after]).sqrt() * predicted
        return noisy if latent is None else latent.decode(noisy / self.scale)
