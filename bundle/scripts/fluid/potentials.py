"""Random potentials, and the velocity and diffusivity that follow from them (paper Eq. 3).

Grid. P and D live in cells, a velocity component on the faces normal to it, and the vector potential Psi on the edges
parallel to it (a Yee/MAC grid). The circulation of Psi around a face is the flux through it, so the six fluxes of a
cell cancel edge by edge: the discrete divergence of V = curl Psi is zero to rounding, whatever Psi is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.nn.functional import pad

from .perlin import perlin_noise, random_lattice

try:
    from .fused import nearest_fused
except ImportError:  # no triton
    nearest_fused = None

__all__ = ["curl", "deeper_than", "divergence", "edge_taper", "random_diffusivity", "random_noise", "random_velocity"]


def _coordinates(sizes, origin, cell_size, shift, like: torch.Tensor) -> list[torch.Tensor]:
    return [
        origin[i] + (torch.arange(n, device=like.device, dtype=like.dtype) + shift[i]) / cell_size
        for i, n in enumerate(sizes)
    ]


def _noise(gradients: np.ndarray, origin: np.ndarray, sizes, cell_size: float, shift, like: torch.Tensor):
    lattice = torch.as_tensor(gradients, device=like.device, dtype=like.dtype)
    return perlin_noise(lattice, _coordinates(sizes, origin, cell_size, shift, like))


def random_noise(state: np.random.RandomState, like: torch.Tensor, cell_size: float) -> torch.Tensor:
    """One Perlin noise at the cell centres of the volume `like` ``(X, Y, Z)``, lattice cells of `cell_size` voxels."""
    gradients, origin = random_lattice(state, [n / cell_size for n in like.shape])
    return _noise(gradients, origin, like.shape, cell_size, (0.5, 0.5, 0.5), like)[0]


def squared_depth(omega: torch.Tensor, limit: int) -> torch.Tensor:
    """Squared Euclidean distance of every cell to the nearest cell outside Omega, exact up to `limit` voxels.

    Distances add up axis by axis: |x|^2 + |y|^2 + |z|^2, so three passes of minima over shifted copies do it, on any
    device. The volume is taken as one long row: a shift that runs over its end crosses the layer of outside cells
    around the grid, which is nearer than anything beyond.

    Args:
        omega: ``(X, Y, Z)`` boolean; beyond the grid counts as outside.
        limit: voxels; deeper cells get ``(limit + 1)^2``.

    Returns:
        ``(X+2, Y+2, Z+2)`` integer squared voxels, with a layer of zeros around the grid.
    """
    dtype = torch.int16 if (limit + 1) ** 2 + limit**2 < 2**15 else torch.int32
    padded = pad(omega.to(dtype), (1,) * 6) * (limit + 1)
    depth = padded.flatten()
    shifted = torch.empty_like(depth)
    step = 1
    while step <= limit:
        torch.add(depth, step, out=shifted)
        torch.minimum(depth[step:], shifted[:-step], out=depth[step:])
        torch.minimum(depth[:-step], shifted[step:], out=depth[:-step])
        step *= 2
    depth.mul_(depth)
    nearest = nearest_fused if nearest_fused is not None and depth.is_cuda else _nearest
    for stride in (padded.stride(1), padded.stride(0)):
        depth = nearest(depth, stride, min(limit, (len(depth) - 1) // stride))
    return depth.view_as(padded)


def _nearest(depth: torch.Tensor, stride: int, limit: int) -> torch.Tensor:
    """Smallest squared depth plus squared distance along the axis with this stride, within `limit` cells."""
    nearest, shifted = depth.clone(), torch.empty_like(depth)
    for offset in range(1, limit + 1):
        torch.add(depth, offset**2, out=shifted)
        k = offset * stride
        torch.minimum(nearest[k:], shifted[:-k], out=nearest[k:])
        torch.minimum(nearest[:-k], shifted[k:], out=nearest[:-k])
    return nearest


def deeper_than(omega: torch.Tensor, depth: float) -> torch.Tensor:
    """Cells further than `depth` voxels from the nearest cell outside Omega, see `squared_depth`; both ``(X, Y, Z)`` boolean."""
    return squared_depth(omega, math.ceil(depth))[1:-1, 1:-1, 1:-1] > depth**2


def edge_taper(omega: torch.Tensor, width: float) -> Iterator[torch.Tensor]:
    """Weight of Psi on the edges: 0 on every edge that touches a cell outside Omega, 1 deeper than `width` voxels.

    With it no face between Omega and the outside carries a flux, and the velocity turns parallel to the boundary. The
    ramp is Bridson's, whose slope at the wall is not zero, so that thin domains (cortex, white matter) flow as well.

    Args:
        omega: ``(X, Y, Z)`` boolean; beyond the grid counts as outside.
        width: ramp width in voxels.

    Yields:
        weights on the x-, y- and z-edges in turn, ``(X, Y+1, Z+1)``, ``(X+1, Y, Z+1)`` and ``(X+1, Y+1, Z)``.

    References:
        R. Bridson, J. Hourihan, M. Nordenstam, Curl-noise for procedural fluid flow, SIGGRAPH 2007.
    """
    limit = math.ceil(width)
    r = (torch.arange((limit + 1) ** 2 + 1, device=omega.device).sqrt() / width).clamp(max=1.0)
    squared = squared_depth(omega, limit)
    ramp = (1.875 * r - 1.25 * r**3 + 0.375 * r**5).index_select(0, squared.flatten().int()).view_as(squared)
    for axis, n in enumerate(omega.shape):
        touched = ramp.narrow(axis, 1, n)
        for other in range(3):
            if other != axis:
                m = touched.shape[other] - 1
                touched = torch.minimum(touched.narrow(other, 0, m), touched.narrow(other, 1, m))
        yield touched


def curl(psi: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Velocity on faces, voxels per unit time, from a vector potential on edges (unit voxel size).

    Args:
        psi: potential on x-, y- and z-edges, shaped as `edge_taper` gives them. Each is used once, in this order.

    Returns:
        velocity through the faces normal to x, y and z: ``(X+1, Y, Z)``, ``(X, Y+1, Z)``, ``(X, Y, Z+1)``.
    """
    velocity: list = [None, None, None]
    for axis, potential in enumerate(psi):
        # Psi_z enters V_x as +d/dy and V_y as -d/dx; the others in turn.
        for target, along, sign in ((axis + 1) % 3, (axis + 2) % 3, 1), ((axis + 2) % 3, (axis + 1) % 3, -1):
            n = potential.shape[along] - 1
            low, high = potential.narrow(along, 0, n), potential.narrow(along, 1, n)
            if velocity[target] is None:
                velocity[target] = high - low if sign > 0 else low - high
            else:
                velocity[target].add_(high, alpha=sign).sub_(low, alpha=sign)
    return tuple(velocity)


def divergence(velocity: Sequence[torch.Tensor]) -> torch.Tensor:
    """Net outflow of each cell, ``(X, Y, Z)``, of a velocity on faces."""
    return sum(component.diff(dim=axis) for axis, component in enumerate(velocity))


def random_velocity(
    state: np.random.RandomState, omega: torch.Tensor, cell_size: float, scale: float, taper: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw V = curl Psi inside Omega, Psi three independent Perlin noises times `scale` (paper Eq. 3).

    Args:
        state: random state.
        omega: ``(X, Y, Z)`` boolean domain.
        cell_size: edge of a noise lattice cell, in voxels.
        scale: amplitude of Psi, voxels^2 per unit time.
        taper: depth in voxels over which Psi falls to zero towards the boundary of Omega.

    Returns:
        float32 velocity on faces, as `curl` returns it; zero on every face with a cell outside Omega on either side.
    """
    like = omega.new_empty(omega.shape, dtype=torch.float32)
    gradients, origin = random_lattice(state, [(n + 1) / cell_size for n in omega.shape], channels=3)

    def psi() -> Iterator[torch.Tensor]:
        for axis, weight in enumerate(edge_taper(omega, taper)):
            shift = [0.5 if i == axis else 0.0 for i in range(3)]
            noise = _noise(scale * gradients[axis : axis + 1], origin, weight.shape, cell_size, shift, like)[0]
            # A constant in Psi carries no flow, yet under the taper it would drive a jet along the wall.
            mean = torch.dot(noise.flatten(), weight.flatten()) / weight.sum().clamp_(min=1.0)
            yield noise.sub_(mean).mul_(weight)

    return curl(psi())


def random_diffusivity(
    state: np.random.RandomState, omega: torch.Tensor, cell_size: float, scale: float
) -> torch.Tensor:
    """Draw D = scale Phi^2 >= 0 in cells, voxels^2 per unit time, Phi a Perlin noise (paper Eq. 3)."""
    return scale * random_noise(state, omega.new_empty(omega.shape, dtype=torch.float32), cell_size).square()
