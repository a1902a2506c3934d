"""Fluid-driven anomaly randomization: a lesion seed becomes a new lesion (paper Sec. 3.1, Alg. 1)."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    LoadImage,
    RandomizableTransform,
    Resample,
    SpatialCrop,
    SpatialResample,
    create_grid,
    generate_spatial_bounding_box,
)
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from ..errors import InputError
from ..randomness import RandDictionaryTransform
from ..volumes import read_volume
from .potentials import random_diffusivity, random_noise, random_velocity
from .transport import simulate

__all__ = ["LESION_THRESHOLD", "RandFluidAnomaly", "RandFluidAnomalyd", "perlin_seed", "traced_seed"]

LESION_THRESHOLD = 0.2  # of a probability, above which a voxel is lesion [code]


def perlin_seed(
    state: np.random.RandomState,
    omega: torch.Tensor,
    cell_size: float,
    percentile: float,
    saturation: float | None = None,
) -> torch.Tensor:
    """Perlin noise in Omega above its own `percentile`; ``(X, Y, Z)`` in [0, 1].

    Args:
        state: random state.
        omega: ``(X, Y, Z)`` boolean domain.
        cell_size: edge of a noise lattice cell, voxels.
        percentile: of the noise in Omega, above which the seed lies.
        saturation: None keeps the value of the noise [paper's code], which rarely exceeds 0.6; a number lets the seed rise from 0
            at its edge, and reach 1 at that share of its height.
    """
    noise = random_noise(state, omega.new_empty(omega.shape, dtype=torch.float32), cell_size)
    # NumPy computes it, because torch.quantile refuses more than 2^24 values.
    threshold = float(np.percentile(noise[omega].cpu().numpy(), percentile))
    if saturation is not None:
        noise = torch.where(omega & (noise > threshold), noise - threshold, 0.0)
        return (noise / (saturation * noise.max()).clamp(min=1e-6)).clamp_(0.0, 1.0)
    return torch.where(omega & (noise > threshold), noise, 0.0).clamp_(0.0, 1.0)


def traced_seed(
    traced: str | Path | MetaTensor, omega: MetaTensor, displacement: str | Path | None = None
) -> torch.Tensor:
    """Load a traced lesion mask and resample it to the grid of Omega; ``(X, Y, Z)`` in [0, 1].

    Args:
        traced: path of the mask, or the mask ``(1, X', Y', Z')`` with an affine to RAS mm.
        omega: domain with an affine to RAS mm.
        displacement: NIfTI vector field ``(X', Y', Z', 1, 3)``, RAS mm, from points of the subject to the space of the mask,
            as `register_lesions` writes it; None when both share a space.

    Raises:
        InputError: when the file is missing, unreadable, or not a 3D volume, or Omega has no affine.
    """
    if not isinstance(omega, MetaTensor):
        raise InputError("traced masks are placed by affines: Omega must be a MetaTensor that has one")
    try:
        mask = traced if isinstance(traced, MetaTensor) else read_volume(traced)
    except InputError as error:
        # The reason is in the message: it is one line that the user reads.
        raise InputError(f"cannot read the traced lesion mask {traced}, mend traced_masks: {error}") from None
    mask = (mask >= 0.5).float()
    if displacement is None:
        resample = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=torch.float32)
        placed = resample(mask, dst_affine=omega.affine, spatial_size=omega.shape[1:])
    else:
        load = LoadImage("NibabelReader", image_only=True, dtype="float32")
        field = load(displacement)[:, :, :, 0].permute(3, 0, 1, 2)
        along = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float32)
        points = along(field, dst_affine=omega.affine, spatial_size=omega.shape[1:]).as_tensor()
        voxels = create_grid(omega.shape[1:], dtype=torch.float64, backend=TransformBackends.TORCH)
        voxels[:3] += (torch.tensor(omega.shape[1:]).double()[:, None, None, None] - 1) / 2
        world = torch.tensordot(omega.affine.double().cpu(), voxels, dims=1)
        world[:3] += points
        grid = torch.tensordot(torch.linalg.inv(mask.affine.double()), world, dims=1)
        grid[:3] -= (torch.tensor(mask.shape[1:]).double()[:, None, None, None] - 1) / 2
        placed = Resample(mode="bilinear", padding_mode="zeros", dtype=torch.float32)(mask, grid.float())
    seed = convert_to_tensor(placed, track_meta=False)[0].to(omega.device)
    if not (seed * (convert_to_tensor(omega, track_meta=False)[0] > 0)).any():
        warnings.warn(
            f"the traced mask {mask.meta.get('filename_or_obj', '')} does not meet Omega, no lesion comes of it; are both in "
            "one space?",
            stacklevel=2,
        )
    return seed


class RandFluidAnomaly(RandomizableTransform):
    """Generate a lesion probability map in a domain by random advection and diffusion of a seed.

    The seed is a traced mask, placed by its affine, or thresholded Perlin noise. It is carried up to a random time by
    a random divergence-free velocity and a random non-negative diffusivity; nothing leaves the domain. See `simulate`
    for the numerics. A voxel counts as lesion where the probability exceeds `lesion_threshold`.

    Lengths are in voxels: the defaults are the paper's, for 1 mm. On a grid of h mm divide `cell_size`,
    `seed_cell_size` and `taper` by h, and `velocity_scale` and `diffusivity_scale` by h^2, to get the same physics.

    Args:
        traced_masks: files of traced lesions, or the masks, in a space that the affine of the domain shares.
        traced_probability: how often a traced mask is the seed, when there are any [paper's code: 0.5].
        percentile: range of the percentile of the noise in Omega above which a Perlin seed lies [code: (90, 99.9)].
        cell_size: edge of a Perlin lattice cell [code: 2 periods over 200 voxels].
        seed_cell_size: range, drawn log-uniformly, of that edge for the seed alone; None for `cell_size`. Small cells give
            many small lesions on both sides, as in multiple sclerosis [code: as the fields].
        seed_saturation: range of the saturation of `perlin_seed`; None keeps the value of the noise [code].
        velocity_scale: amplitude of the velocity potential Psi, voxels^2 per unit time; 0 switches advection off
            [code: 500, which gives about 10 voxels per unit time].
        diffusivity_scale: D = diffusivity_scale x Phi^2, voxels^2 per unit time; 0 switches diffusion off.
        time_step: spacing of the transport times [code: 0.1].
        num_times: range, both ends included, of the number of time points, t = 0 being the first [code: (2, 10)].
        taper: depth below the boundary of Omega over which the velocity potential falls to zero.
        lesion_threshold: probability above which a voxel counts as lesion [code: 0.2].
        min_lesion_fraction: a lesion under this share of the volume is dropped [code: 1e-6].
        cfl: see `simulate`.
        prob: probability that there is an anomaly at all; else the map is zero.

    Returns (of a call):
        float32 probability ``(1, X, Y, Z)`` in [0, 1], zero outside Omega, with the meta data of the domain.

    Raises:
        InputError: on an empty or non-3D domain, or a traced mask that cannot be read.

    References:
        Liu, Aguila, Iglesias: Unraveling Normal Anatomy via Fluid-Driven Anomaly Randomization, CVPR 2025, Eq. 1-3.

    Example:
        >>> anomaly = RandFluidAnomaly(traced_masks=["lesion.nii.gz"]).set_random_state(0)(brain_mask)
    """

    def __init__(
        self,
        traced_masks: Sequence[str | Path | MetaTensor] = (),
        traced_probability: float = 0.5,
        percentile: tuple[float, float] = (90.0, 99.9),
        cell_size: float = 100.0,
        seed_cell_size: tuple[float, float] | None = None,
        seed_saturation: tuple[float, float] | None = None,
        velocity_scale: float = 500.0,
        diffusivity_scale: float = 1.0,
        time_step: float = 0.1,
        num_times: tuple[int, int] = (2, 10),
        taper: float = 20.0,
        lesion_threshold: float = LESION_THRESHOLD,
        min_lesion_fraction: float = 1e-6,
        cfl: float = 0.95,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        for name, value in {"velocity_scale": velocity_scale, "diffusivity_scale": diffusivity_scale}.items():
            if value < 0:
                raise InputError(f"{name} must not be negative, got {value}; 0 switches the term off")
        if time_step <= 0 or num_times[0] < 1:
            raise InputError(f"time_step must be positive and num_times at least 1, got {time_step} and {num_times}")
        self.traced_masks = list(traced_masks)
        self.traced_probability = traced_probability
        self.percentile = percentile
        self.cell_size = cell_size
        self.seed_cell_size = (cell_size, cell_size) if seed_cell_size is None else seed_cell_size
        self.seed_saturation = seed_saturation
        self.velocity_scale = velocity_scale
        self.diffusivity_scale = diffusivity_scale
        self.time_step = time_step
        self.num_times = num_times
        self.taper = taper
        self.lesion_threshold = lesion_threshold
        self.min_lesion_fraction = min_lesion_fraction
        self.cfl = cfl
        self._mask: str | Path | MetaTensor | None = None
        self._percentile = percentile[0]
        self._seed_cell = cell_size
        self._saturation: float | None = None
        self._times = 1
        self._field_seed = 0

    def randomize(self, data=None) -> None:
        super().randomize(None)
        use_traced = self.R.uniform() < self.traced_probability and len(self.traced_masks) > 0
        self._mask = self.traced_masks[self.R.randint(len(self.traced_masks))] if use_traced else None
        self._percentile = self.R.uniform(*self.percentile)
        self._seed_cell = float(np.exp(self.R.uniform(*np.log(self.seed_cell_size))))
        self._saturation = None if self.seed_saturation is None else self.R.uniform(*self.seed_saturation)
        self._times = self.R.randint(self.num_times[0], self.num_times[1] + 1)
        self._field_seed = self.R.randint(2**31 - 1)

    def trajectory(
        self, omega: torch.Tensor, times: Sequence[float] | None = None, displacement: str | Path | None = None
    ) -> torch.Tensor:
        """The current draw at `times`, by default at its end: ``(len(times), X, Y, Z)``.

        Args:
            omega: the domain.
            times: see `simulate`.
            displacement: see `traced_seed`.
        """
        if omega.ndim != 4 or omega.shape[0] != 1:
            raise InputError(f"Omega must be one 3D mask (1, X, Y, Z), got shape {tuple(omega.shape)}")
        if not (omega > 0).any():
            raise InputError("Omega is empty: no voxel in which a lesion may evolve; check the mask or the label map")
        times = [(self._times - 1) * self.time_step] if times is None else times
        # Nothing happens outside Omega: all the work is done in its bounding box.
        low, high = generate_spatial_bounding_box(convert_to_tensor(omega, track_meta=False))
        box = (slice(None), *map(slice, low, high))
        inside = SpatialCrop(roi_start=low, roi_end=high)(omega) if isinstance(omega, MetaTensor) else omega[box]
        domain = convert_to_tensor(inside, track_meta=False)[0] > 0
        fields = np.random.RandomState(self._field_seed)
        seed = (
            perlin_seed(fields, domain, self._seed_cell, self._percentile, self._saturation)
            if self._mask is None
            else traced_seed(self._mask, inside, displacement)
        )
        velocity = (
            random_velocity(fields, domain, self.cell_size, self.velocity_scale, self.taper)
            if self.velocity_scale > 0
            else [seed.new_zeros([n + (i == axis) for i, n in enumerate(seed.shape)]) for axis in range(3)]
        )
        diffusivity = (
            random_diffusivity(fields, domain, self.cell_size, self.diffusivity_scale)
            if self.diffusivity_scale > 0
            else torch.zeros_like(seed)
        )
        frames = seed.new_zeros((len(times), *omega.shape[1:]))
        frames[box] = simulate(seed, domain, velocity, diffusivity, times, self.cfl)
        return frames

    def __call__(
        self, omega: torch.Tensor, randomize: bool = True, displacement: str | Path | None = None
    ) -> torch.Tensor:
        if randomize:
            self.randomize()
        anomaly = (
            self.trajectory(omega, displacement=displacement)
            if self._do_transform
            else torch.zeros_like(omega, dtype=torch.float32)
        )
        if (anomaly > self.lesion_threshold).float().mean() < self.min_lesion_fraction:
            anomaly = torch.zeros_like(anomaly)
        return convert_to_dst_type(anomaly, omega, dtype=torch.float32)[0]


class RandFluidAnomalyd(RandDictionaryTransform):
    """Dictionary form of `RandFluidAnomaly`.

    Args:
        keys: one key, the domain Omega (the brain, or one tissue).
        anomaly_key: where the probability map goes.
        displacement_key: where data may have the file that brings traced masks to the subject, see `traced_seed`.
        fluid: further arguments of `RandFluidAnomaly`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        anomaly_key: str = "anomaly",
        displacement_key: str = "template_displacement",
        **fluid,
    ) -> None:
        super().__init__(keys, RandFluidAnomaly(**fluid))
        self.anomaly_key = anomaly_key
        self.displacement_key = displacement_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        anomaly = self.transform(data[self.keys[0]], displacement=data.get(self.displacement_key))
        return {**data, self.anomaly_key: anomaly}
