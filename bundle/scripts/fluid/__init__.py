"""Perlin noise, potentials, transport, and the random anomaly that they make."""

from .anomaly import LESION_THRESHOLD, RandFluidAnomaly, RandFluidAnomalyd, perlin_seed, traced_seed
from .perlin import perlin_noise, random_lattice
from .potentials import curl, divergence, random_diffusivity, random_noise, random_velocity, squared_depth
from .transport import simulate

__all__ = [
    "LESION_THRESHOLD",
    "RandFluidAnomaly",
    "RandFluidAnomalyd",
    "curl",
    "divergence",
    "perlin_noise",
    "perlin_seed",
    "random_diffusivity",
    "random_lattice",
    "random_noise",
    "random_velocity",
    "simulate",
    "squared_depth",
    "traced_seed",
]
