"""What takes most of the time of an anomaly on a GPU, as one kernel each: a step of the transport, a pass of the depth.

A step reads P and the coefficients and writes P once, as little as a step can move. A pass reads each depth from memory once, its
neighbours from the cache. In eager torch a step is 14 kernels, and a pass three for every voxel of its reach.

Triton comes with torch for CUDA. ``TRITON_INTERPRET=1`` runs the kernel on a CPU, which the tests do.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["advance_fused", "nearest_fused"]

BLOCK = 512  # cells of a program


@triton.jit
def _step(p, new, ax, bx, ay, by, az, bz, dt, X, Y, Z, BLOCK: tl.constexpr):
    """New value of `BLOCK` cells: what flows out through six faces, and what flows in.

    A face has the number of the cell below it on its own grid, which is one shorter along its axis.
    """
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < X * Y * Z
    x, y, z = cell // (Y * Z), (cell // Z) % Y, cell % Z
    here = tl.load(p + cell, inside, 0.0)
    change = tl.zeros([BLOCK], here.dtype)

    face = cell
    above = inside & (x < X - 1)
    change -= tl.load(ax + face, above, 0.0) * here - tl.load(bx + face, above, 0.0) * tl.load(
        p + cell + Y * Z, above, 0.0
    )
    face, below = cell - Y * Z, inside & (x > 0)
    change += (
        tl.load(ax + face, below, 0.0) * tl.load(p + cell - Y * Z, below, 0.0) - tl.load(bx + face, below, 0.0) * here
    )

    face = cell - x * Z
    above = inside & (y < Y - 1)
    change -= tl.load(ay + face, above, 0.0) * here - tl.load(by + face, above, 0.0) * tl.load(p + cell + Z, above, 0.0)
    below = inside & (y > 0)
    change += (
        tl.load(ay + face - Z, below, 0.0) * tl.load(p + cell - Z, below, 0.0)
        - tl.load(by + face - Z, below, 0.0) * here
    )

    face = cell - x * Y - y
    above = inside & (z < Z - 1)
    change -= tl.load(az + face, above, 0.0) * here - tl.load(bz + face, above, 0.0) * tl.load(p + cell + 1, above, 0.0)
    below = inside & (z > 0)
    change += (
        tl.load(az + face - 1, below, 0.0) * tl.load(p + cell - 1, below, 0.0)
        - tl.load(bz + face - 1, below, 0.0) * here
    )

    tl.store(new + cell, here + dt * change, inside)


def advance_fused(p: torch.Tensor, coefficients, dt: float, steps: int) -> torch.Tensor:
    """Euler steps of P.

    Args:
        p: ``(X, Y, Z)`` float32, overwritten.
        coefficients: a and b of the faces along each axis, see `transport`.
        dt: length of a step.
        steps: number of them.

    Returns:
        P after the steps, in the memory of `p` or in other memory.
    """
    faces = [face.contiguous() for pair in coefficients for face in pair]
    other = torch.empty_like(p)
    for _ in range(steps):
        _step[(triton.cdiv(p.numel(), BLOCK),)](p, other, *faces, dt, *p.shape, BLOCK=BLOCK)
        p, other = other, p
    return p


@triton.jit
def _nearest(depth, nearest, cells, stride, limit, far, BLOCK: tl.constexpr):
    """Smallest squared depth plus squared distance along one axis, within `limit` cells."""
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < cells
    best = tl.load(depth + cell, inside, 0).to(tl.int32)
    for offset in range(1, limit + 1):
        away = offset * stride
        before = tl.load(depth + cell - away, inside & (cell >= away), far).to(tl.int32)
        after = tl.load(depth + cell + away, inside & (cell + away < cells), far).to(tl.int32)
        best = tl.minimum(best, tl.minimum(before, after) + offset * offset)
    tl.store(nearest + cell, best.to(nearest.dtype.element_ty), inside)


def nearest_fused(depth: torch.Tensor, stride: int, limit: int) -> torch.Tensor:
    """A pass of `squared_depth` along the axis with this stride; `depth` is flat."""
    nearest = torch.empty_like(depth)
    far = min(torch.iinfo(depth.dtype).max, 2**30)  # beyond the ends of the row lies nothing that is near
    blocks = (triton.cdiv(len(depth), BLOCK),)
    _nearest[blocks](depth, nearest, len(depth), stride, limit, far, BLOCK=BLOCK)
    return nearest
