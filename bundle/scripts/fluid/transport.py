"""Advection-diffusion of a lesion probability inside a domain (paper Eq. 1-3), as a conservative finite-volume scheme.

    dP/dt + div(V P) - div(D grad P) = 0 in Omega,  no flux through the boundary of Omega,  P(0) = P0

P is a mean over cells; V is given on faces, D in cells and averaged to faces. Through the face between the cells L and
R flows ``F = max(V, 0) P_L + min(V, 0) P_R - D (P_R - P_L) = a P_L - b P_R`` with ``a, b >= 0``: first-order upwind
advection and central diffusion (first and second order in space). Faces with a cell outside Omega on either side are
closed. Time stepping is explicit Euler with ``dt <= cfl / max outflow rate of a cell``. Under that bound the new value
of a cell is a convex combination of old values whenever div V = 0: P stays within the range of P0, a constant stays
constant, and mass is conserved to rounding.

Three engines share the scheme: `advance_everywhere` in torch, on any device and in float64 too; its steps as one kernel,
`fused.advance_fused`, for float32 on a GPU; and `rows.advance_rows`, for float32 on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..errors import InputError

try:
    from .rows import advance_rows
except ImportError:  # no numba
    advance_rows = None
try:
    from .fused import advance_fused
except ImportError:  # no triton
    advance_fused = None

__all__ = ["advance_everywhere", "simulate"]


def _check(p0, omega, velocity, diffusivity, times) -> None:
    if p0.ndim != 3 or omega.shape != p0.shape or diffusivity.shape != p0.shape:
        raise InputError(
            "simulate needs P0, Omega and D on one 3D grid, "
            f"got shapes {tuple(p0.shape)}, {tuple(omega.shape)}, {tuple(diffusivity.shape)}"
        )
    for axis, component in enumerate(velocity):
        expected = [n + (i == axis) for i, n in enumerate(p0.shape)]
        if list(component.shape) != expected:
            raise InputError(
                f"velocity component {axis} must live on the faces, shape {expected}, got {tuple(component.shape)}"
            )
    if not omega.any():
        raise InputError("Omega is empty: no voxel in which a lesion may evolve; check the mask")
    named = {"P0": p0, "diffusivity": diffusivity, **{f"velocity[{i}]": v for i, v in enumerate(velocity)}}
    # A sum is finite only if all of its terms are: it needs one pass over each array, and one message from the device.
    sums = [value.sum(dtype=torch.promote_types(value.dtype, torch.float32)) for value in named.values()]
    *sums, lowest = torch.stack([value.double() for value in (*sums, diffusivity.min())]).tolist()
    for name, total in zip(named, sums):
        if not math.isfinite(total):
            raise InputError(f"{name} has NaN or infinite values; remove them before the simulation")
    if lowest < 0:
        raise InputError(f"diffusivity must not be negative, its minimum is {lowest:g}")
    if not len(times) or any(t1 < t0 for t0, t1 in zip([0.0, *times], times)):
        raise InputError(f"times must be non-negative and must not decrease, got {list(times)}")


def _face_coefficients(omega, velocity, diffusivity) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per axis, a and b of the flux a P_L - b P_R through the faces between two cells."""
    coefficients = []
    for axis, component in enumerate(velocity):
        n = omega.shape[axis] - 1
        omega_low, omega_high = omega.narrow(axis, 0, n), omega.narrow(axis, 1, n)
        d = 0.5 * (diffusivity.narrow(axis, 0, n) + diffusivity.narrow(axis, 1, n))
        v = component.narrow(axis, 1, n).to(diffusivity.dtype)
        is_open = (omega_low & omega_high).to(diffusivity.dtype)
        coefficients.append((is_open * (v.clamp(min=0.0) + d), is_open * (d - v.clamp(max=0.0))))
    return coefficients


def _outflow_rate(coefficients, like: torch.Tensor) -> float:
    """Largest rate at which a cell is emptied, per unit time: the inverse of the monotone step."""
    rate = torch.zeros_like(like)
    for axis, (a, b) in enumerate(coefficients):
        rate.narrow(axis, 0, a.shape[axis]).add_(a)
        rate.narrow(axis, 1, b.shape[axis]).add_(b)
    return float(rate.max())


def _reach(p0: torch.Tensor, steps: int) -> tuple[slice, ...]:
    """Box that the lesion cannot leave: its bounding box, grown by the one voxel a step that the stencil spans."""
    box = []
    for axis in range(3):
        hit = p0.amax(dim=[i for i in range(3) if i != axis]).nonzero()
        if not len(hit):
            return tuple(slice(0, n) for n in p0.shape)
        box.append(slice(max(0, int(hit[0]) - steps), min(p0.shape[axis], int(hit[-1]) + steps + 1)))
    return tuple(box)


def _advance(p: torch.Tensor, coefficients, dt: float, steps: int) -> torch.Tensor:
    """Euler steps of P in place."""
    coefficients = [(a * dt, b * dt) for a, b in coefficients]
    for _ in range(steps):
        change = torch.zeros_like(p)
        for axis, (a, b) in enumerate(coefficients):
            n = a.shape[axis]
            flux = (a * p.narrow(axis, 0, n)).addcmul_(b, p.narrow(axis, 1, n), value=-1.0)
            change.narrow(axis, 0, n).sub_(flux)
            change.narrow(axis, 1, n).add_(flux)
        p += change
    return p


def _stepper(p: torch.Tensor):
    fused = advance_fused is not None and p.is_cuda and p.dtype == torch.float32
    return advance_fused if fused else _advance


def advance_everywhere(p0, omega, velocity, diffusivity, times, cfl) -> torch.Tensor:
    """The trajectory of `simulate` for checked arguments, in the precision of P0."""
    p0 = torch.where(omega, p0, 0.0)
    coefficients = _face_coefficients(omega, velocity, diffusivity.to(p0.dtype))
    rate = _outflow_rate(coefficients, p0)
    intervals = [t1 - t0 for t0, t1 in zip([0.0, *times], times)]
    steps = [math.ceil(interval * rate / cfl) for interval in intervals]

    box = _reach(p0, sum(steps))
    p = p0[box].clone()
    cut = [
        tuple(c[box[:axis] + (slice(box[axis].start, box[axis].stop - 1),) + box[axis + 1 :]] for c in pair)
        for axis, pair in enumerate(coefficients)
    ]
    trajectory = p0.new_zeros((len(times), *p0.shape))
    for frame, interval, n in zip(trajectory, intervals, steps):
        if n:
            p = _stepper(p)(p, cut, interval / n, n)
        frame[box] = p
    return trajectory


@torch.no_grad()
def simulate(
    p0: torch.Tensor,
    omega: torch.Tensor,
    velocity: Sequence[torch.Tensor],
    diffusivity: torch.Tensor,
    times: Sequence[float],
    cfl: float = 0.95,
) -> torch.Tensor:
    """Carry a lesion probability by advection and diffusion inside a domain.

    Args:
        p0: ``(X, Y, Z)`` initial probability; what lies outside Omega is cut off. float64 is kept, anything else is
            computed in float32 (also under autocast).
        omega: ``(X, Y, Z)`` boolean domain.
        velocity: on faces, ``(X+1, Y, Z)``, ``(X, Y+1, Z)``, ``(X, Y, Z+1)``, voxels per unit time. Should be
            divergence-free (see `curl`), or P may leave the range of P0.
        diffusivity: ``(X, Y, Z)``, voxels^2 per unit time, not negative.
        times: increasing times >= 0 at which P is wanted.
        cfl: share of the largest monotone step that is taken, in (0, 1].

    Returns:
        ``(len(times), X, Y, Z)`` trajectory.

    Raises:
        InputError: on grids that do not fit, an empty Omega, negative diffusivity or time, values that are not finite.
    """
    if not 0.0 < cfl <= 1.0:
        raise InputError(f"cfl must lie in (0, 1] for a stable step, got {cfl}")
    omega = omega.to(torch.bool)
    _check(p0, omega, velocity, diffusivity, times)
    dtype = torch.float64 if p0.dtype == torch.float64 else torch.float32
    fast = advance_rows is not None and p0.device.type == "cpu" and dtype == torch.float32
    return (advance_rows if fast else advance_everywhere)(p0.to(dtype), omega, velocity, diffusivity, times, cfl)
