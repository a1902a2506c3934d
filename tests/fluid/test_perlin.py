import numpy as np
import torch
from scripts.fluid import perlin_noise, random_lattice


def naive_perlin(gradients: np.ndarray, x: float, y: float, z: float) -> float:
    """Perlin noise at one point as it is defined: eight corners, inner products, quintic interpolation."""
    i, j, k = int(x), int(y), int(z)
    fade = [t**3 * (t * (6 * t - 15) + 10) for t in (x - i, y - j, z - k)]
    total = 0.0
    for a in (0, 1):
        for b in (0, 1):
            for c in (0, 1):
                offset = np.array([x - i - a, y - j - b, z - k - c])
                weight = np.prod([f if corner else 1 - f for f, corner in zip(fade, (a, b, c))])
                total += weight * float(gradients[:, i + a, j + b, k + c] @ offset)
    return total


def test_agrees_with_the_definition():
    gradients, origin = random_lattice(np.random.RandomState(0), [1.7, 2.3, 0.9], channels=2)
    axes = [origin[i] + np.linspace(0, extent, n) for i, (extent, n) in enumerate([(1.7, 5), (2.3, 6), (0.9, 4)])]
    noise = perlin_noise(torch.tensor(gradients), [torch.tensor(axis) for axis in axes])
    for c in range(2):
        for (i, x), (j, y), (k, z) in [
            (p, q, r) for p in enumerate(axes[0]) for q in enumerate(axes[1]) for r in enumerate(axes[2])
        ]:
            assert abs(float(noise[c, i, j, k]) - naive_perlin(gradients[c], x, y, z)) < 1e-12


def test_gradients_are_unit_vectors_and_noise_vanishes_at_lattice_points():
    gradients, _ = random_lattice(np.random.RandomState(1), [3.0, 3.0, 3.0])
    np.testing.assert_allclose(np.linalg.norm(gradients, axis=1), 1.0)
    nodes = [torch.arange(4, dtype=torch.float64)] * 3
    assert perlin_noise(torch.tensor(gradients), nodes).abs().max() < 1e-12
