"""The healthy scan predicted from the healthy T1w, where the truth is known."""

import numpy as np
import pytest
import torch
from conftest import ball
from scripts.detection import MatchContrast, MatchContrastd, anomaly_score, to_scale_of
from sklearn.metrics import average_precision_score


@pytest.fixture(scope="module")
def case():
    """A T1w of three tissues, the same brain as T2w with a bias field and noise, and a bright lesion of 8 % of it."""
    generator = torch.Generator().manual_seed(0)
    brain = ball(48, 22.0)
    t1 = torch.where(ball(48, 13.0), 0.8, torch.where(ball(48, 19.0), 0.55, 0.2)).float()
    t1 = torch.nn.functional.avg_pool3d(t1[None, None], 3, 1, 1)[0, 0] + 0.02 * torch.randn(
        t1.shape, generator=generator
    )
    t1 = t1 * brain
    axis = torch.linspace(-1, 1, 48)
    healthy_t2 = (0.95 - 0.9 * t1 + 0.15 * t1**2) * (1.0 + 0.15 * axis[:, None, None]) * brain
    lesion = torch.zeros_like(brain)
    lesion[26:38, 16:32, 14:30] = True
    lesion &= brain
    scan = (
        torch.where(lesion, healthy_t2 + 0.25, healthy_t2) + 0.02 * torch.randn(t1.shape, generator=generator) * brain
    )
    return t1[None], scan[None], brain[None], healthy_t2[None], lesion[None]


def test_prediction_is_the_healthy_scan_also_under_the_lesion(case):
    t1, scan, brain, healthy_t2, lesion = case
    expected = MatchContrast()(t1, scan, brain)
    error = (expected - healthy_t2).abs()
    assert float(error[brain].mean()) < 0.02 and float(error[lesion].mean()) < 0.03
    assert not expected[~brain].any()


def test_a_lesion_is_seen_that_the_plain_difference_misses(case):
    t1, scan, brain, _, lesion = case
    truth = lesion[brain].numpy()
    plain = average_precision_score(truth, anomaly_score(scan, t1, brain)[brain].numpy())
    items = {"pred": t1, "scan": scan, "brain": brain}
    match = MatchContrastd("pred", modalities=["t2"], image_key="scan")
    factor = match({**items, "modality": "t1"})["expected"][t1 > 0] / t1[t1 > 0]
    torch.testing.assert_close(factor, factor[:1].expand_as(factor))  # a T1w keeps its contrast
    data = match({**items, "modality": "t2"})
    matched = average_precision_score(truth, anomaly_score(scan, data["expected"], brain)[brain].numpy())
    assert matched > 0.95 > 0.5 > plain


def test_a_t1w_is_compared_as_it_is(case):
    t1, _, brain, _, _ = case
    brighter = 1.3 * t1  # another scale than the network's is no anomaly
    assert float((MatchContrast()(t1, brighter, brain) - brighter).abs()[brain].mean()) < 0.01


def test_flat_reconstructions_and_empty_brains_do_not_fail(case):
    t1, scan, brain, _, _ = case
    flat = MatchContrast()(torch.full_like(t1, 0.5), scan, brain)
    assert np.isclose(float(flat[brain].median()), float(scan[brain].median()), atol=1e-6)
    assert not MatchContrast()(t1, scan, torch.zeros_like(brain)).any()


def test_one_factor_from_the_healthy_voxels():
    generator = torch.Generator().manual_seed(0)
    healthy = 0.2 + 0.6 * torch.rand(1, 20, 20, 20, generator=generator)
    scan = 1.7 * healthy
    scan[:, :6, :10, :10] = 0.1  # a lesion in 7 % of the brain does not bend it
    matched = to_scale_of(healthy, scan, torch.ones_like(scan))
    torch.testing.assert_close(matched, 1.7 * healthy)
    assert to_scale_of(healthy, scan, torch.zeros_like(scan)) is healthy
