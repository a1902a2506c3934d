"""Distances of a scan from its reconstruction, where the answer is known."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.residual import Absolute, Dissimilarity, Fusion, Mahalanobis, Product, Residuald, Squared


@pytest.fixture
def pair():
    scan = torch.rand(1, 16, 18, 20, generator=torch.Generator().manual_seed(0))
    healthy = scan.clone()
    healthy[:, 6:10, 6:10, 6:10] -= 0.5
    return scan, healthy, torch.ones_like(scan)


def test_absolute_squared_and_their_product(pair):
    inside, outside = (0, 7, 7, 7), (0, 1, 1, 1)
    assert float(Absolute()(*pair)[inside]) == pytest.approx(0.5) and float(Absolute()(*pair)[outside]) == 0.0
    assert float(Squared()(*pair)[inside]) == pytest.approx(0.25)
    assert float(Product([Absolute(), Squared()])(*pair)[inside]) == pytest.approx(0.125)


def test_dissimilarity_keeps_the_grid_and_ends_with_the_window(pair):
    for windows, reach in (((3,), 1), ((7,), 3), ((3, 7), 3)):
        found = Dissimilarity(windows)(*pair)
        assert found.shape == pair[0].shape
        touched = (found > 1e-6).nonzero()[:, 1:]
        assert 6 - reach <= touched.min() < 6 and 9 < touched.max() <= 9 + reach
    both = Dissimilarity((3, 7))(*pair)
    torch.testing.assert_close(both, (Dissimilarity((3,))(*pair) + Dissimilarity((7,))(*pair)) / 2)


def test_mahalanobis_counts_in_deviations_of_the_draws():
    scan, brain = torch.full((1, 4, 4, 4), 0.9), torch.ones(1, 4, 4, 4)
    draws = torch.stack([torch.full((4, 4, 4), value) for value in (0.4, 0.6)])
    assert float(Mahalanobis(least=0.0)(scan, draws, brain)[0, 0, 0, 0]) == pytest.approx(4.0, rel=1e-5)
    sure = Mahalanobis(least=0.1)(scan, draws[:1], brain)
    assert float(sure[0, 0, 0, 0]) == pytest.approx(5.0, rel=1e-5)


def test_fusion_weighs_measures_equally(pair):
    fused = Fusion([Absolute(), Squared()])(*pair)
    assert float(fused.mean()) == pytest.approx(1.0, rel=1e-5)


def test_residual_takes_the_affine_of_the_scan(pair):
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    data = {
        "scan": MetaTensor(pair[0], affine=affine),
        "pred_healthy": MetaTensor(pair[1]),
        "brain": MetaTensor(pair[2]),
    }
    score = Residuald("pred_healthy", Absolute())(data)["score"]
    np.testing.assert_array_equal(score.affine, affine)
    torch.testing.assert_close(score.as_tensor(), Absolute()(*pair))
