"""Perlin noise, potentials, transport, and the random anomaly that they make."""

from .anomaly import LESION_THRESHOLD, RandFluidAnomaly, RandFluidAnomalyd, perlin_seed, traced_seed
from .perlin import perlin_noise, random_lattice
from .potentials import curl, deeper_than, divergence, random_diffusivity, random_noise, random_velocity
from .transport import simulate

__all__ = [
    "LESION_THRESHOLD",
    "RandFluidAnomaly",
    "RandFluidAnomalyd",
    "curl",
    "deeper_than",
    "divergence",
    "perlin_noise",
    "perlin_seed",
    "random_diffusivity",
    "random_lattice",
    "random_noise",
    "random_velocity",
    "simulate",
    "traced_seed",
]
