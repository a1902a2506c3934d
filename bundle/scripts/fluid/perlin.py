"""Perlin noise in 3D as a short sum of separable one-dimensional bases.

On one lattice cell Perlin noise is a sum over the eight corners of (fade weight in x)(fade weight in y)(fade weight in
z)(gradient . offset). Each of the three terms of the inner product is a product of functions of one coordinate:
a *hat* ``1 - fade(|u - a|)`` around lattice point ``a``, and a *ramp* ``(u - a) hat(u)``. The volume is therefore a
tensor contraction of the lattice of gradients with small per-axis matrices, exact and without a gather.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["perlin_noise", "random_lattice"]


def random_lattice(
    state: np.random.RandomState, extent: Sequence[float], channels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the gradients of a noise lattice and the place of the volume on it.

    Args:
        state: random state.
        extent: size of the volume along each axis, in lattice cells.
        channels: number of independent noises on the same lattice.

    Returns:
        gradients ``(channels, 3, n1, n2, n3)``, unit vectors (sin phi cos theta, sin phi sin theta, cos phi) with theta
        and phi uniform on [0, 2 pi), as the paper's code draws them; and the origin ``(3,)`` of the volume in lattice
        units, uniform in the first cell.
    """
    points = [int(np.ceil(e)) + 2 for e in extent]
    theta, phi = state.uniform(0.0, 2.0 * np.pi, size=(2, channels, *points))
    gradients = np.stack([np.sin(phi) * np.cos(theta), np.sin(phi) * np.sin(theta), np.cos(phi)], axis=1)
    return gradients, state.uniform(0.0, 1.0, size=3)


def _bases(u: torch.Tensor, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hat and ramp of every lattice point at the coordinates `u`: two matrices ``(len(u), points)``."""
    offset = u[:, None] - torch.arange(points, device=u.device, dtype=u.dtype)
    t = offset.abs().clamp(max=1.0)
    hat = 1.0 - t**3 * (t * (6.0 * t - 15.0) + 10.0)
    return hat, offset * hat


def perlin_noise(gradients: torch.Tensor, coordinates: Sequence[torch.Tensor]) -> torch.Tensor:
    """Evaluate Perlin noise on a rectilinear grid.

    Args:
        gradients: ``(C, 3, n1, n2, n3)`` gradient vectors at the lattice points.
        coordinates: three vectors of positions in lattice units, each within ``[0, n - 1]`` of its axis.

    Returns:
        ``(C, len(x), len(y), len(z))`` noise, zero at every lattice point, roughly within [-1, 1].

    References:
        K. Perlin, Improving noise, SIGGRAPH 2002 (quintic fade t^3 (t (6 t - 15) + 10)).
    """
    (hx, rx), (hy, ry), (hz, rz) = (_bases(u, n) for u, n in zip(coordinates, gradients.shape[2:]))
    gx, gy, gz = gradients.unbind(1)
    along_x = torch.einsum("cijk,xi->cxjk", gx, rx), torch.einsum("cijk,xi->cxjk", gy, hx)
    with_hat_z = torch.einsum("cxjk,yj->cxyk", along_x[0], hy) + torch.einsum("cxjk,yj->cxyk", along_x[1], ry)
    with_ramp_z = torch.einsum("cijk,xi,yj->cxyk", gz, hx, hy)
    return torch.cat([with_hat_z, with_ramp_z], dim=-1) @ torch.cat([hz, rz], dim=-1).T
