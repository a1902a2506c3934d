"""The solver against analytic solutions, invariants, and an independent implementation."""

import numpy as np
import pytest
import torch
from conftest import ball
from scipy.linalg import expm
from scripts.errors import InputError
from scripts.fluid import random_diffusivity, random_velocity, simulate, transport

TIMES = [0.0, 0.3, 0.9]


@pytest.fixture(params=["rows", "torch"], autouse=True)
def engine(request, monkeypatch) -> str:
    """Every test holds for both engines."""
    if request.param == "torch":
        monkeypatch.setattr(transport, "advance_rows", None)
    return request.param


def draw(seed: int, omega: torch.Tensor, advection: bool = True, diffusion: bool = True):
    state = np.random.RandomState(seed)
    velocity = random_velocity(state, omega, cell_size=20.0, scale=60.0 * advection, taper=6.0)
    return velocity, random_diffusivity(state, omega, cell_size=20.0, scale=3.0 * diffusion)


def blob(omega: torch.Tensor) -> torch.Tensor:
    seed = torch.zeros(omega.shape)
    seed[tuple(slice(n // 4, n // 2) for n in omega.shape)] = 1.0
    return seed * omega


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("terms", [(True, True), (True, False), (False, True)], ids=["both", "advection", "diffusion"])
def test_mass_bounds_and_domain(seed, terms):
    omega = ball(32, 13.0)
    p0 = blob(omega)
    trajectory = simulate(p0, omega, *draw(seed, omega, *terms), TIMES)
    mass = trajectory.double().sum(dim=(1, 2, 3))
    assert ((mass - mass[0]).abs() < 1e-5 * mass[0]).all()
    assert trajectory.min() >= 0.0 and trajectory.max() <= 1.0 + 1e-5
    assert not trajectory[:, ~omega].any()
    torch.testing.assert_close(trajectory[0], p0)
    assert (trajectory[-1] - p0).abs().max() > 0.1


def test_a_constant_stays_constant():
    omega = ball(28, 11.0)
    trajectory = simulate(omega.float(), omega, *draw(1, omega), [0.9])
    torch.testing.assert_close(trajectory[0], omega.float(), atol=1e-4, rtol=0)


def test_nothing_crosses_between_tissues_that_touch():
    omega = torch.zeros(24, 24, 24, dtype=torch.bool)
    omega[2:12, 2:22, 2:22] = True
    omega[12, 12, 12] = True  # a bridge of one voxel, closed on its far side
    p0 = torch.ones(24, 24, 24)
    trajectory = simulate(p0, omega, *draw(2, omega), [0.9])[0]
    assert not trajectory[13:].any() and not trajectory[12][~omega[12]].any()


def gaussian(shape, centre, variance) -> torch.Tensor:
    grids = torch.meshgrid(*[(torch.arange(n, dtype=torch.float64) + 0.5) / shape[0] for n in shape], indexing="ij")
    return torch.exp(-sum((g - c) ** 2 for g, c in zip(grids, centre)) / (2 * variance))


def convergence_order(errors: list[float]) -> float:
    return float(np.log2(errors[-2] / errors[-1]))


def test_pure_diffusion_is_the_heat_kernel_at_second_order():
    # On the unit cube: variance grows by 2 D t, amplitude falls with (s0 / s)^3.
    d, t, start = 0.006, 0.25, 0.006
    errors = []
    for n in (16, 32, 64):
        shape, centre = (n, n, n), (0.5, 0.5, 0.5)
        omega = torch.ones(shape, dtype=torch.bool)
        still = [torch.zeros([n + (i == a) for i in range(3)]) for a in range(3)]
        found = simulate(gaussian(shape, centre, start), omega, still, torch.full(shape, d * n**2), [t], cfl=0.5)[0]
        end = start + 2 * d * t
        errors.append(float((found - (start / end) ** 1.5 * gaussian(shape, centre, end)).abs().max()))
    assert errors[-1] < 2e-3
    assert 1.8 < convergence_order(errors) < 2.3


def test_pure_advection_translates_at_first_order():
    v, t, variance = (0.4, 0.3, 0.2), 0.5, 0.006
    errors = []
    for n in (24, 48, 96):
        shape, start = (n, n, n), (0.35, 0.4, 0.4)
        omega = torch.ones(shape, dtype=torch.bool)
        velocity = [torch.full([n + (i == a) for i in range(3)], v[a] * n) for a in range(3)]
        found = simulate(gaussian(shape, start, variance), omega, velocity, torch.zeros(shape), [t])[0]
        moved = gaussian(shape, [s + c * t for s, c in zip(start, v)], variance)
        errors.append(float((found - moved).abs().sum() / moved.sum()))
    assert errors[0] > errors[1] > errors[2]
    assert 0.75 < convergence_order(errors) < 1.3


def naive_generator(omega, velocity, diffusivity) -> np.ndarray:
    """dP/dt = A P in float64, built cell by cell from the fluxes through the six faces."""
    cells = [tuple(c) for c in np.argwhere(omega)]
    number = {cell: i for i, cell in enumerate(cells)}
    a = np.zeros((len(cells), len(cells)))
    for cell in cells:
        for axis in range(3):
            beyond = list(cell)
            beyond[axis] += 1
            beyond = tuple(beyond)
            if beyond not in number:
                continue
            low, high = number[cell], number[beyond]
            v = velocity[axis][beyond]
            d = (diffusivity[cell] + diffusivity[beyond]) / 2
            upwind = low if v > 0 else high
            for target, sign in ((low, -1.0), (high, 1.0)):
                a[target, upwind] += sign * v
                a[target, low] += sign * d
                a[target, high] -= sign * d
    return a


def test_agrees_with_a_naive_float64_implementation():
    omega = ball(9, 3.6)
    velocity, diffusivity = draw(4, omega)
    p0 = torch.rand(9, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * omega
    a = naive_generator(omega.numpy(), [v.double().numpy() for v in velocity], diffusivity.double().numpy())
    exact = torch.zeros(9, 9, 9, dtype=torch.float64)
    exact[omega] = torch.from_numpy(expm(0.5 * a) @ p0[omega].numpy())
    errors = [
        float((simulate(p0, omega, velocity, diffusivity, [0.5], cfl)[0] - exact).abs().max()) for cfl in (0.2, 0.02)
    ]
    assert errors[1] < 1e-2
    assert 8.0 < errors[0] / errors[1] < 12.0  # Euler: a tenth of the step, a tenth of the error


def test_the_reachable_box_changes_nothing():
    omega = torch.ones(48, 40, 40, dtype=torch.bool)
    velocity, diffusivity = draw(5, omega)
    small = torch.zeros(48, 40, 40, dtype=torch.float64)
    small[8:11, 20:23, 20:23] = 1.0
    dust = small.clone()
    dust[0, 0, 0] = dust[-1, -1, -1] = 1e-300  # spans the whole grid, weighs nothing
    alone, with_dust = (simulate(p, omega, velocity, diffusivity, [0.05])[0] for p in (small, dust))
    torch.testing.assert_close(alone, with_dust, atol=1e-15, rtol=0)


DOMAINS = {
    "ball": ball(40, 17.0),
    "box that touches the grid": torch.ones(20, 35, 50, dtype=torch.bool),
    "two-voxel sheet": torch.zeros(48, 24, 24, dtype=torch.bool).index_fill_(2, torch.tensor([11, 12]), True),
    "scattered voxels": torch.rand(48, 24, 40, generator=torch.Generator().manual_seed(0)) > 0.4,
    "two balls apart": torch.cat([ball(24, 9.0), ball(24, 9.0)], dim=2),
    "one voxel": ball(9, 0.9),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_both_engines_agree(name, engine, monkeypatch):
    if engine == "torch":
        pytest.skip("compares the two")
    omega = DOMAINS[name]
    for seed in range(8):
        fields = draw(seed, omega)
        noise = torch.rand(omega.shape, generator=torch.Generator().manual_seed(seed))
        p0 = torch.where(noise > 0.999, noise, 0.0) if seed % 2 else blob(omega)
        times = [[0.9], [0.0, 0.1, 0.9], [0.03]][seed % 3]
        found = simulate(p0, omega, *fields, times)
        plain = transport.advance_everywhere(p0, omega, *fields, times, 0.95)
        torch.testing.assert_close(found, plain, atol=5e-6, rtol=0)


def test_threads_do_not_change_the_result(engine, monkeypatch):
    omega = torch.ones(90, 24, 24, dtype=torch.bool)
    p0 = torch.rand(omega.shape, generator=torch.Generator().manual_seed(0))
    fields = draw(3, omega)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(simulate(p0, omega, *fields, TIMES))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_times_may_be_reached_in_pieces_and_start_late():
    omega = ball(24, 10.0)
    fields = draw(6, omega)
    p0 = blob(omega).double()
    late = simulate(p0, omega, *fields, [0.5], cfl=0.05)[0]
    pieces = simulate(p0, omega, *fields, [0.1, 0.2, 0.5], cfl=0.05)[-1]
    torch.testing.assert_close(late, pieces, atol=2e-3, rtol=0)


def test_precision_follows_the_input_and_ignores_autocast():
    omega = ball(24, 10.0)
    fields = draw(7, omega)
    p0 = blob(omega)
    single, double = simulate(p0, omega, *fields, [0.9])[0], simulate(p0.double(), omega, *fields, [0.9])[0]
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(simulate(p0.half(), omega, *fields, [0.9])[0], single, atol=0, rtol=0)


def test_bad_input_is_named():
    omega = ball(12, 4.0)
    velocity, diffusivity = draw(0, omega)
    p0 = blob(omega)
    broken = p0.clone()
    broken[0, 0, 0] = float("nan")
    cases = {
        "Omega is empty": (p0, torch.zeros_like(omega), velocity, diffusivity, [0.1]),
        "must not be negative": (p0, omega, velocity, -diffusivity - 1, [0.1]),
        "times must be non-negative": (p0, omega, velocity, diffusivity, [-0.1]),
        "must not decrease": (p0, omega, velocity, diffusivity, [0.2, 0.1]),
        "P0 has NaN": (broken, omega, velocity, diffusivity, [0.1]),
        "one 3D grid": (p0[:-1], omega, velocity, diffusivity, [0.1]),
        "live on the faces": (p0, omega, [v[:-1] for v in velocity], diffusivity, [0.1]),
    }
    for message, arguments in cases.items():
        with pytest.raises(InputError, match=message):
            simulate(*arguments)
    with pytest.raises(InputError, match="cfl"):
        simulate(p0, omega, velocity, diffusivity, [0.1], cfl=1.5)
