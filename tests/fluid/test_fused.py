"""The kernel of the steps for a GPU: on a GPU where there is one, else in Triton's interpreter."""

import numpy as np
import pytest
import torch
from conftest import ball
from scripts.fluid import potentials, random_diffusivity, random_velocity, transport

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_those_of_float64(seed, monkeypatch):
    omega = ball(22, 9.5)[:, 1:20, 2:19].contiguous()  # three lengths, so that an index on the wrong axis shows
    state = np.random.RandomState(seed)
    velocity = random_velocity(state, omega, cell_size=12.0, scale=30.0, taper=4.0)
    diffusivity = random_diffusivity(state, omega, cell_size=12.0, scale=2.0)
    p0 = torch.rand(omega.shape, generator=torch.Generator().manual_seed(seed)) * omega
    doubled = [component.double() for component in velocity]
    wanted = transport.advance_everywhere(p0.double(), omega, doubled, diffusivity.double(), [0.2, 0.7], 0.95)

    fused = pytest.importorskip("scripts.fluid.fused")  # there is no Triton for some machines
    used = []

    def counted(p, coefficients, dt, steps):
        used.append(steps)
        return fused.advance_fused(p, coefficients, dt, steps)

    monkeypatch.setattr(transport, "_stepper", lambda p: counted)
    here = [component.to(DEVICE) for component in velocity]
    found = transport.advance_everywhere(
        p0.to(DEVICE), omega.to(DEVICE), here, diffusivity.to(DEVICE), [0.2, 0.7], 0.95
    ).cpu()
    assert len(used) == 2 and min(used) > 1
    assert (found - wanted).abs().max() < 2e-6
    assert float(found[-1].double().sum()) == pytest.approx(float(p0.double().sum()), rel=1e-6)
    assert not found[:, ~omega].any()
    assert (found[-1] - p0).abs().max() > 0.1


@pytest.mark.parametrize("limit", [3, 7])
def test_depth_is_that_of_eager_torch(limit):
    fused = pytest.importorskip("scripts.fluid.fused")
    omega = ball(20, 8.5)[:, 1:18, 3:19].contiguous()
    omega[9, 8, 7] = False
    wanted = potentials.squared_depth(omega, limit)
    depth = torch.nn.functional.pad(omega.to(torch.int16), (1,) * 6) * (limit + 1)
    row = depth.flatten().clone()
    for step in range(1, limit + 1):  # along z, cell by cell
        row[step:] = torch.minimum(row[step:], depth.flatten()[:-step] + step)
        row[:-step] = torch.minimum(row[:-step], depth.flatten()[step:] + step)
    found = (row * row).to(DEVICE)
    for stride in (depth.stride(1), depth.stride(0)):
        found = fused.nearest_fused(found, stride, limit)
    assert torch.equal(found.cpu().view_as(wanted), wanted)
    assert wanted.unique().numel() > 4
