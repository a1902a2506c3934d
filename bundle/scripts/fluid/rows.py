"""The transport of `simulate` on a CPU: rows that the lesion has reached, several time steps while a plane is in cache.

The arithmetic is that of `transport.advance_everywhere`, with the same coefficients and the same steps. What differs is
the order of the work, for a CPU lives on its caches:

- Along z the grid is cut in blocks of `BLOCK` cells. Per row (x, y) the range of blocks with lesion is known; a step
  touches that range and one block around it. A block that would be entered with less than `EPSILON` is not entered: it
  costs at most `EPSILON` of mass per cell at the front and step, far below the rounding of float32.
- Step k of plane x needs step k - 1 of the planes x - 1 to x + 1. So `DEPTH` steps run as a slanted wave, plane by
  plane, and the coefficients, which make up three quarters of the traffic, come from memory once per `DEPTH` steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numba import njit
from scipy.ndimage import maximum_filter1d

__all__ = ["advance_rows"]

BLOCK = 16  # cells: one cache line, and one AVX-512 register
DEPTH = 8  # steps in flight; their planes fit in 1 MB for a brain at 1 mm
EPSILON = np.float32(1e-10)


def _can_cache() -> bool:
    """Whether there is a place for compiled code: a read-only installation with a read-only home has none."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError:
        print(
            "compiled code cannot be kept on this machine (no folder to write to); it is compiled at every start",
            flush=True,
        )
        return False
    return True


# Compiled code is kept on disk under the name of the module, and this file has two: in the bundle it is `scripts`, installed
# it is `una`, where it is compiled anew in each process (3 s).
_CACHE = __name__.startswith("scripts.") and _can_cache()
_EMPTY = 2**30  # first block of a row without any; the matching last block is -1
# Infinite and NaN inputs are refused before; sums of positive numbers may be taken in any order.
_FAST = {"nsz", "contract", "nnan", "ninf", "reassoc"}
_index = np.uint64  # unsigned: signed indices would be tested for a count from the end, which stops vectorization


@njit(cache=_CACHE, nogil=True, error_model="numpy")
def _extents(omega):
    """First cell and the one after the last of every row (x, y) that has any, else 0 and 0."""
    first = np.zeros(omega.shape[:2], np.int64)
    last = np.zeros(omega.shape[:2], np.int64)
    for x in range(omega.shape[0]):
        for y in range(omega.shape[1]):
            row = omega[x, y]
            low, high = 0, len(row)
            while low < high and not row[low]:
                low += 1
            while high > low and not row[high - 1]:
                high -= 1
            if low < high:
                first[x, y], last[x, y] = low, high
    return first, last


@njit(cache=_CACHE, nogil=True, error_model="numpy")
def _clear(row):
    for k in range(len(row)):
        row[k] = 0


@njit(cache=_CACHE, nogil=True, fastmath=_FAST, error_model="numpy")
def _faces(a, b, omega_left, omega_right, d_left, d_right, v):
    """Coefficients of the flux a P_left - b P_right; closed where either cell is outside."""
    for k in range(len(a)):
        is_open = omega_left[k] & omega_right[k]
        d = np.float32(0.5) * (d_left[k] + d_right[k])
        a[k] = max(v[k], np.float32(0)) + d if is_open else np.float32(0)
        b[k] = max(-v[k], np.float32(0)) + d if is_open else np.float32(0)


@njit(cache=_CACHE, nogil=True, error_model="numpy")
def _prepare(c, p, p0, omega, diffusivity, vx, vy, vz, first, last, origin, begin, end, x_from, x_to):
    """Fill the coefficients of the lower faces of the cells of some planes, P, and the ranges of blocks in P.

    The arrays come as memory that was never written: only what a step can read is, less than half for a brain.
    """
    bx, by, bz = origin
    planes, rows = begin.shape[1], begin.shape[2]
    for x in range(x_from, x_to):
        for y in range(rows):
            read_first, read_last = begin[2, x, y], end[2, x, y]
            for i, j in (
                (max(x - 1, 0), y),
                (min(x + 1, planes - 1), y),
                (x, max(y - 1, 0)),
                (x, min(y + 1, rows - 1)),
            ):
                read_first, read_last = min(read_first, begin[2, i, j]), max(read_last, end[2, i, j])
            if read_first >= read_last:
                continue
            read = slice(read_first * BLOCK, read_last * BLOCK + 2)
            for array in c:
                _clear(array[x, y, read])
            for array in p:
                _clear(array[x, y, read])
            gx, gy = bx + x - 1, by + y - 1
            if begin[2, x, y] >= end[2, x, y]:
                continue
            low, high = first[gx, gy], last[gx, gy]
            cells, padded = slice(low, high), slice(low - bz + 1, high - bz + 1)
            domain, d = omega[gx, gy], diffusivity[gx, gy]
            if x > 1:
                _faces(c[0][x, y, padded], c[1][x, y, padded], omega[gx - 1, gy, cells], domain[cells],
                       diffusivity[gx - 1, gy, cells], d[cells], vx[gx, gy, cells])  # fmt: skip
            if y > 1:
                _faces(c[2][x, y, padded], c[3][x, y, padded], omega[gx, gy - 1, cells], domain[cells],
                       diffusivity[gx, gy - 1, cells], d[cells], vy[gx, gy, cells])  # fmt: skip
            inner, below, upper = slice(low + 1, high), slice(low, high - 1), slice(low - bz + 2, high - bz + 1)
            _faces(c[4][x, y, upper], c[5][x, y, upper], domain[below], domain[inner], d[below], d[inner],
                   vz[gx, gy, inner])  # fmt: skip
            target, source = p[0][x, y, padded], p0[gx, gy, cells]
            for k in range(high - low):
                target[k] = source[k] if domain[low + k] else np.float32(0)
            while low < high and p[0][x, y, low - bz + 1] == 0:
                low += 1
            while high > low and p[0][x, y, high - bz] == 0:
                high -= 1
            if low < high:
                begin[:2, x, y] = (low - bz) // BLOCK
                end[:2, x, y] = (high - bz - 1) // BLOCK + 1


@njit(cache=_CACHE, nogil=True, fastmath=_FAST, error_model="numpy")
def _largest_rate(c, stride_x, stride_y, begin, end, x_from, x_to):
    """Largest rate at which a cell is emptied, per unit time."""
    one = _index(1)
    ax, bx, ay, by, az, bz = c
    largest = np.float32(0)
    for x in range(max(1, x_from), min(begin.shape[0] - 1, x_to)):
        for y in range(1, begin.shape[1] - 1):
            start = _index(x) * stride_x + _index(y) * stride_y + _index(begin[x, y] * BLOCK + 1)
            for k in range((end[x, y] - begin[x, y]) * BLOCK):
                i = start + _index(k)
                out = bx[i] + ax[i + stride_x] + by[i] + ay[i + stride_y] + bz[i] + az[i + one]
                largest = max(largest, out)
    return largest


@njit(cache=_CACHE, nogil=True, fastmath=_FAST, error_model="numpy")
def _step_blocks(new, old, ax, bx, ay, by, az, bz, start, blocks, stride_x, stride_y, dt):
    one = _index(1)
    for block in range(blocks):
        # A constant number of turns: one vector without a remainder.
        for k in range(BLOCK):
            i = start + _index(block * BLOCK) + _index(k)
            out = bx[i] + ax[i + stride_x] + by[i] + ay[i + stride_y] + bz[i] + az[i + one]
            inflow = (
                ax[i] * old[i - stride_x]
                + bx[i + stride_x] * old[i + stride_x]
                + ay[i] * old[i - stride_y]
                + by[i + stride_y] * old[i + stride_y]
                + az[i] * old[i - one]
                + bz[i + one] * old[i + one]
            )
            new[i] = old[i] * (np.float32(1) - dt * out) + dt * inflow


@njit(cache=_CACHE, nogil=True, fastmath=_FAST, error_model="numpy")
def _stays_empty(p, start):
    """Whether a block holds next to nothing; then it is zeroed."""
    largest = np.float32(0)
    for k in range(BLOCK):
        largest = max(largest, p[start + _index(k)])
    if largest >= EPSILON:
        return False
    for k in range(BLOCK):
        p[start + _index(k)] = np.float32(0)
    return True


@njit(cache=_CACHE, nogil=True, error_model="numpy")
def _step_plane(x, y_low, y_high, new, old, c, stride_x, stride_y, dt, domain_begin, domain_end, begin, end,
                next_begin, next_end):  # fmt: skip
    for y in range(max(1, y_low), min(begin.shape[1] - 1, y_high)):
        low = min(begin[x, y] - 1, begin[x - 1, y], begin[x + 1, y], begin[x, y - 1], begin[x, y + 1])
        high = max(end[x, y] + 1, end[x - 1, y], end[x + 1, y], end[x, y - 1], end[x, y + 1])
        low, high = max(low, domain_begin[x, y]), min(high, domain_end[x, y])
        if low >= high:
            continue
        start = _index(x) * stride_x + _index(y) * stride_y + _index(1)
        _step_blocks(new, old, *c, start + _index(low * BLOCK), high - low, stride_x, stride_y, dt)
        # Ranges only grow. The other buffer is therefore zero outside the range that is written next.
        known_low, known_high = begin[x, y], end[x, y]
        if known_low >= known_high:
            known_low, known_high = high, low
        while low < min(known_low, high) and _stays_empty(new, start + _index(low * BLOCK)):
            low += 1
        while high > max(known_high, low) and _stays_empty(new, start + _index((high - 1) * BLOCK)):
            high -= 1
        if low < high:
            next_begin[x, y], next_end[x, y] = low, high


@njit(cache=_CACHE, nogil=True, error_model="numpy")
def _advance(even, odd, c, stride_x, stride_y, dt, begin, end, low, low_slope, high, high_slope, y_low, y_high,
             steps):  # fmt: skip
    """Step k of the planes ``low + k low_slope <= x < high + k high_slope``, for all steps of a wave.

    P and its ranges go from `even` and slot 0 to `odd` and slot 1 and back.
    """
    for front in range(low - steps, high + 2 * steps):
        for k in range(steps):
            x = front - k
            if max(1, low + k * low_slope) <= x < min(begin.shape[1] - 1, high + k * high_slope):
                i, j = k % 2, (k + 1) % 2
                old, new = (odd, even) if i else (even, odd)
                _step_plane(x, y_low - k, y_high + k, new, old, c, stride_x, stride_y, dt,
                            begin[2], end[2], begin[i], end[i], begin[j], end[j])  # fmt: skip


def _wave(pool, parts, begin, end, arguments, steps):
    """Steps of the whole lesion. Its planes are cut in parts, one a thread.

    Away from a cut a part can go on alone: step k of the planes from cut + k on. What is left is a wedge around each
    cut, step k of the planes within k of it, and all that it reads stays in the buffers, untouched, until it is done.
    """
    load = np.maximum(end[0] - begin[0], 0).sum(1)
    planes = np.flatnonzero(load)
    if not len(planes):
        return
    load = load + maximum_filter1d(load, 2 * steps + 1)  # it will grow: on average about half of the way
    rows = np.flatnonzero((end[0] > begin[0]).any(0))
    y_low, y_high = rows[0] - 1, rows[-1] + 2
    parts = max(1, min(parts, len(planes) // (2 * steps)))
    shares = np.searchsorted(np.cumsum(load), load.sum() * np.arange(1, parts) / parts)
    cuts = np.maximum.accumulate(np.maximum(shares, planes[0] - 1 + 2 * steps * np.arange(1, parts)))
    edges = [(planes[0] - 1, -1), *((cut, 1) for cut in cuts)], [*((cut, -1) for cut in cuts), (planes[-1] + 2, 1)]
    list(pool.map(lambda low, high: _advance(*arguments, *low, *high, y_low, y_high, steps), *edges))
    list(pool.map(lambda cut: _advance(*arguments, cut, -1, cut, 1, y_low, y_high, steps), cuts))


@njit(cache=_CACHE, nogil=True, error_model="numpy")
def _copy_rows(frame, p, first, last, origin):
    bx, by, bz = origin
    for x in range(bx, bx + p.shape[0] - 2):
        for y in range(by, by + p.shape[1] - 2):
            low, high = first[x, y], last[x, y]
            frame[x, y, low:high] = p[x - bx + 1, y - by + 1, low - bz + 1 : high - bz + 1]


def advance_rows(
    p0: torch.Tensor,
    omega: torch.Tensor,
    velocity: Sequence[torch.Tensor],
    diffusivity: torch.Tensor,
    times: Sequence[float],
    cfl: float,
) -> torch.Tensor:
    """As `transport.advance_everywhere`, in float32 on the CPU."""
    p0, diffusivity, vx, vy, vz = (t.float().contiguous().numpy() for t in (p0, diffusivity, *velocity))
    domain = omega.contiguous().numpy()
    first, last = _extents(domain)
    rows = np.argwhere(last > first)
    (x0, y0), (x1, y1) = rows.min(0), rows.max(0) + 1
    z0, z1 = int(first[last > first].min()), int(last.max())
    blocks = -(-(z1 - z0) // BLOCK)
    shape = (x1 - x0 + 2, y1 - y0 + 2, blocks * BLOCK + 2)
    stride_x, stride_y = _index(shape[1] * shape[2]), _index(shape[2])

    # Eight arrays rather than two: of this size the allocator gives back memory that is already there.
    *c, p, other = (torch.empty(shape).numpy() for _ in range(8))
    begin, end = np.full((3, *shape[:2]), _EMPTY), np.full((3, *shape[:2]), -1)  # of P, of P, of Omega
    cells = first[x0:x1, y0:y1], last[x0:x1, y0:y1]
    inner = np.s_[2, 1:-1, 1:-1]
    begin[inner] = np.where(cells[0] < cells[1], (cells[0] - z0) // BLOCK, _EMPTY)
    end[inner] = np.where(cells[0] < cells[1], (cells[1] - z0 - 1) // BLOCK + 1, -1)

    trajectory = torch.zeros(len(times), *omega.shape)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        edges = np.linspace(0, shape[0], threads + 1).astype(int)
        fields = (p0, domain, diffusivity, vx, vy, vz)
        prepare = partial(_prepare, tuple(c), (p, other), *fields, first, last, (x0, y0, z0), begin, end)
        list(pool.map(prepare, edges, edges[1:]))
        *flat, p, other = (array.reshape(-1) for array in (*c, p, other))
        flat = tuple(flat)
        largest_rate = partial(_largest_rate, flat, stride_x, stride_y, begin[2], end[2])
        rate = float(max(pool.map(largest_rate, edges, edges[1:])))
        for frame, interval in zip(trajectory, np.diff([0.0, *times])):
            steps = math.ceil(interval * rate / cfl)
            for done in range(0, steps, DEPTH):
                depth = min(DEPTH, steps - done)
                dt = np.float32(interval / steps)
                arguments = (p, other, flat, stride_x, stride_y, dt, begin, end)
                _wave(pool, threads, begin, end, arguments, depth)
                if depth % 2:
                    p, other = other, p
                    begin[:2], end[:2] = begin[1::-1].copy(), end[1::-1].copy()
            _copy_rows(frame.numpy(), p.reshape(shape), first, last, (x0, y0, z0))
    return trajectory
