"""The kernel of the steps for a GPU: on a GPU where there is one, else in Triton's interpreter."""

import numpy as np
import pytest
import torch
from conftest import ball
from scripts.fluid import random_diffusivity, random_velocity, transport

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
