import numpy as np
import pytest
import torch
from conftest import ball
from scipy.ndimage import distance_transform_edt
from scripts.fluid import curl, divergence, potentials, random_diffusivity, random_noise, random_velocity

DOMAINS = {
    "ball": ball(32, 13.0),
    "box that touches the grid": torch.ones(20, 24, 16, dtype=torch.bool),
    "two-voxel sheet": torch.zeros(24, 24, 24, dtype=torch.bool).index_fill_(2, torch.tensor([11, 12]), True),
    "scattered voxels": torch.rand(24, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.4,
}


@pytest.mark.parametrize("name", DOMAINS)
def test_depth_is_the_euclidean_distance_up_to_its_limit(name):
    exact = distance_transform_edt(np.pad(DOMAINS[name].numpy(), 1))
    for limit in (1, 4, 20, 200):
        found = potentials.squared_depth(DOMAINS[name], limit).double().sqrt().numpy()
        np.testing.assert_allclose(found[exact <= limit], exact[exact <= limit], atol=1e-6)
        assert (found[exact > limit] > limit).all()


@pytest.mark.parametrize("name", DOMAINS)
def test_velocity_is_divergence_free_and_stays_inside(name):
    omega = DOMAINS[name]
    velocity = random_velocity(np.random.RandomState(3), omega, cell_size=20.0, scale=100.0, taper=6.0)
    speed = max(float(component.abs().max()) for component in velocity)
    assert divergence(velocity).abs().max() < 1e-5 * speed
    outside = torch.nn.functional.pad(~omega, (1,) * 6, value=True)
    for axis, component in enumerate(velocity):
        n = omega.shape[axis] + 1
        both = outside.narrow(axis, 0, n) | outside.narrow(axis, 1, n)
        inner = tuple(slice(None) if i == axis else slice(1, -1) for i in range(3))
        assert not component[both[inner]].any()
    if name != "scattered voxels":
        assert speed > 0.1


def test_curl_of_a_linear_potential_is_the_known_rotation():
    # Psi = (0, 0, -(x^2 + y^2) / 2) has the curl (-y, x, 0).
    n = 8
    node = torch.arange(n + 1, dtype=torch.float64)
    centre = torch.arange(n, dtype=torch.float64) + 0.5
    pz = (-(node[:, None] ** 2 + node[None, :] ** 2) / 2)[:, :, None].expand(n + 1, n + 1, n)
    zero_x, zero_y = torch.zeros(n, n + 1, n + 1), torch.zeros(n + 1, n, n + 1)
    vx, vy, vz = curl((zero_x.double(), zero_y.double(), pz))
    torch.testing.assert_close(vx, -centre[None, :, None].expand(n + 1, n, n))
    torch.testing.assert_close(vy, centre[:, None, None].expand(n, n + 1, n))
    assert not vz.any()


def test_speeds_are_those_of_the_papers_code():
    # Multiplier 500 on a lattice of 100 voxels: near 10 voxels per unit time away from the wall.
    omega = torch.ones(96, 96, 96, dtype=torch.bool)
    speeds = []
    for seed in range(4):
        velocity = random_velocity(np.random.RandomState(seed), omega, cell_size=100.0, scale=500.0, taper=20.0)
        inner = [component.narrow(axis, 0, 96)[24:-24, 24:-24, 24:-24] for axis, component in enumerate(velocity)]
        speeds.append(float(torch.stack(inner).norm(dim=0).mean()))
    assert 4.0 < np.mean(speeds) < 15.0


def test_the_three_potentials_are_independent():
    like = torch.ones(48, 48, 48, dtype=torch.bool)
    vx, vy, vz = random_velocity(np.random.RandomState(0), like, 24.0, 1.0, 1.0)
    centred = torch.stack([v.narrow(a, 0, 48).flatten() for a, v in enumerate((vx, vy, vz))])
    correlation = torch.corrcoef(centred)
    assert correlation[~torch.eye(3, dtype=torch.bool)].abs().max() < 0.5


def test_diffusivity_is_a_square():
    omega = ball(32, 13.0)
    diffusivity = random_diffusivity(np.random.RandomState(5), omega, 20.0, 2.0)
    noise = random_noise(np.random.RandomState(5), torch.zeros(32, 32, 32), 20.0)
    assert diffusivity.min() >= 0 and noise.min() < 0
    torch.testing.assert_close(diffusivity, 2.0 * noise**2)
