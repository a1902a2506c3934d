"""The healthy scan predicted from the healthy T1w, where the truth is known."""

import numpy as np
import pytest
import torch
from conftest import ball
from monai.data import MetaTensor
from scripts.residual import MatchContrast, MatchContrastd, difference
from scripts.similarity import to_scale_of
from sklearn.metrics import average_precision_score

STIFF, LOOSE = (1.0, 1.0), (0.0, 0.0)  # what counts as uneven: nothing, everything
AFFINE = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64))


def volume(values) -> MetaTensor:
    return MetaTensor(values[None].float(), affine=AFFINE)


@pytest.fixture(scope="module")
def anatomy():
    """A T1w of three tissues in a brain of 18 cm."""
    generator = torch.Generator().manual_seed(0)
    brain = ball(48, 22.0)
    t1 = torch.where(ball(48, 13.0), 0.8, torch.where(ball(48, 19.0), 0.55, 0.2)).float()
    t1 = torch.nn.functional.avg_pool3d(t1[None, None], 3, 1, 1)[0, 0] + 0.02 * torch.randn(
        t1.shape, generator=generator
    )
    return t1 * brain, brain, generator


@pytest.fixture(scope="module")
def case(anatomy):
    """The brain as T2w with a bias field and noise, and a bright lesion of 8 % of it."""
    t1, brain, generator = anatomy
    axis = torch.linspace(-1, 1, 48)
    healthy_t2 = (0.95 - 0.9 * t1 + 0.15 * t1**2) * (1.0 + 0.15 * axis[:, None, None]) * brain
    lesion = torch.zeros_like(brain)
    lesion[26:38, 16:32, 14:30] = True
    lesion &= brain
    noise = 0.02 * torch.randn(t1.shape, generator=generator) * brain
    scan = torch.where(lesion, healthy_t2 + 0.25, healthy_t2) + noise
    return volume(t1), volume(scan), volume(brain), volume(healthy_t2), lesion[None]


def test_prediction_is_the_healthy_scan_also_under_the_lesion(case):
    t1, scan, brain, healthy_t2, lesion = case
    expected = MatchContrast()(t1, scan, brain)
    error = (expected - healthy_t2).abs().as_tensor()
    assert float(error[brain.as_tensor() > 0].mean()) < 0.02 and float(error[lesion].mean()) < 0.03
    assert not expected[brain == 0].any()


def test_a_lesion_is_seen_that_the_plain_difference_misses(case):
    t1, scan, brain, _, lesion = case
    inside = brain.as_tensor() > 0
    truth = lesion[inside].numpy()
    plain = average_precision_score(truth, difference(scan, t1, brain)[inside].numpy())
    data = MatchContrastd("pred", image_key="scan")({"pred": t1, "scan": scan, "brain": brain, "modality": "t2"})
    matched = average_precision_score(truth, difference(scan, data["expected"], brain)[inside].numpy())
    assert matched > 0.95 > 0.5 > plain


def test_another_t1w_sequence_and_another_coil_are_no_anomaly(anatomy):
    t1, brain, _ = anatomy
    axis = torch.linspace(-1, 1, 48)
    gain = 1.0 + 0.4 * axis[None, :, None]
    scan = volume(1.3 * (0.1 + 0.9 * t1**1.5) * gain * brain)
    expected = MatchContrast(monotone=True)(volume(t1), scan, volume(brain))
    off = ((expected - scan).abs() / scan.clamp(min=0.1)).as_tensor()[volume(brain) > 0]
    assert float(off.median()) < 0.05
    # One factor, which is all that the paper's difference has, is far off.
    one = to_scale_of(volume(t1), scan, volume(brain))
    assert float(((one - scan).abs() / scan.clamp(min=0.1)).as_tensor()[volume(brain) > 0].median()) > 0.1


def test_a_large_one_sided_lesion_is_not_explained_as_gain(anatomy):
    t1, brain, generator = anatomy
    lesion = torch.zeros_like(brain)
    lesion[26:44, 12:36, 12:36] = True  # most of one hemisphere's middle
    lesion &= brain
    assert 0.1 < float(lesion.sum()) / float(brain.sum()) < 0.3
    scan = (
        torch.where(lesion, 0.2 * torch.ones_like(t1), t1) + 0.02 * torch.randn(t1.shape, generator=generator) * brain
    )
    white = lesion & (t1 > 0.6)

    expected = MatchContrast(monotone=True)(volume(t1), volume(scan), volume(brain))
    left = float((expected - volume(scan)).as_tensor()[0][white].mean())
    assert left > 0.4  # of 0.6; a smooth gain that took the lesion along would leave 0.1


def test_the_curve_of_a_t1w_rises(anatomy):
    t1, brain, _ = anatomy
    inverted = volume((1.0 - t1) * brain)  # a T2w that is said to be a T1w
    no_gain = MatchContrast(monotone=True, hold=1e4)
    even = no_gain(volume(t1), inverted, volume(brain))
    expected = even.as_tensor()[0]
    white, gray = (expected[(t1 > low) & (t1 < high)].mean() for low, high in ((0.75, 0.85), (0.5, 0.6)))
    assert white >= gray - 0.02


def test_flat_reconstructions_and_empty_brains_do_not_fail(case):
    t1, scan, brain, _, _ = case
    flat = MatchContrast()(MetaTensor(torch.full_like(t1.as_tensor(), 0.5), affine=AFFINE), scan, brain)
    assert np.isclose(float(flat[brain > 0].median()), float(scan[brain > 0].median()), atol=0.1)
    assert not MatchContrast()(t1, scan, MetaTensor(torch.zeros_like(brain.as_tensor()), affine=AFFINE)).any()


def test_one_factor_from_the_healthy_voxels():
    generator = torch.Generator().manual_seed(0)
    healthy = 0.2 + 0.6 * torch.rand(1, 20, 20, 20, generator=generator)
    scan = 1.7 * healthy
    scan[:, :6, :10, :10] = 0.1  # a lesion in 7 % of the brain does not bend it
    matched = to_scale_of(healthy, scan, torch.ones_like(scan))
    torch.testing.assert_close(matched, 1.7 * healthy)
    torch.testing.assert_close(to_scale_of(healthy, scan, torch.zeros_like(scan)), healthy)
    healthy[0, 0, 0, 0] = 65535.0  # a hot voxel is not the scale
    torch.testing.assert_close(to_scale_of(healthy, scan, torch.ones_like(scan)), 1.7 * healthy)


@pytest.fixture(scope="module")
def soft(anatomy):
    """The brain in a contrast with a slow bias field, and the same with a soft bright lesion at its surface; and where that is."""
    t1, brain, _ = anatomy
    axes = torch.meshgrid(*[4.0 * torch.arange(48.0)] * 3, indexing="ij")
    far = sum((axis - middle) ** 2 for axis, middle in zip(axes, (96.0, 96.0, 164.0)))
    lesion = torch.exp(-far / (2 * 12.0**2)) * brain
    healthy = (0.95 - 0.9 * t1 + 0.15 * t1**2) * (1.0 + 0.15 * torch.linspace(-1, 1, 48)[:, None, None]) * brain
    return volume(t1), volume(brain), volume(healthy), volume(healthy * (1 + 0.5 * lesion)), (lesion > 0.5)[None]


def test_an_even_coil_has_a_stiff_gain_that_takes_no_lesion(soft):
    t1, brain, healthy, scan, lesion = soft
    matches = {"even": MatchContrast(), "uneven": MatchContrast(uneven=LOOSE), "one factor": MatchContrast(bend=1e6)}
    found = {name: match(t1, scan, brain) for name, match in matches.items()}
    seen = {
        name: float((scan - value)[lesion].mean() / (scan - healthy)[lesion].mean()) for name, value in found.items()
    }
    assert seen["even"] > 0.6 and seen["uneven"] > 0.6  # of its brightness: the loose gain is found beside it, too
    inside = (brain.as_tensor() > 0) & ~lesion
    off = {name: float((value - healthy).abs().as_tensor()[inside].mean()) for name, value in found.items()}
    assert off["even"] < 0.5 * off["one factor"]  # a gain that cannot bend at all follows no coil


@pytest.mark.parametrize("uneven_coil", [False, True])
def test_a_large_bright_lesion_of_soft_borders_is_no_coil_and_a_coil_beside_it_is(anatomy, uneven_coil):
    """A tumour of 190 ml in FLAIR, which goes over into healthy tissue within 2 cm, with an even and with an uneven coil."""
    t1, brain, generator = anatomy
    place = torch.stack(torch.meshgrid(*[torch.arange(48.0)] * 3, indexing="ij"), dim=-1) * 4.0
    away = ((place - torch.tensor([136.0, 96.0, 110.0])) ** 2).sum(dim=-1).sqrt()
    tumour = torch.sigmoid((36.0 - away) / 5.0) * brain
    # Factors that change within 6 cm. A stronger field is severe: its gain is found everywhere.
    wave = torch.cos(place[..., 0] / 20.0) * torch.cos(place[..., 1] / 22.0 + 1.0)
    coil = torch.exp(0.045 * wave) if uneven_coil else torch.ones_like(t1)
    healthy = (0.2 + 1.2 * t1 - 0.9 * t1**2) * coil * brain
    noise = 0.01 * torch.randn(t1.shape, generator=generator) * brain
    scan = healthy * (1 + 0.7 * tumour) + noise
    expected = MatchContrast()(volume(t1), volume(scan), volume(brain)).as_tensor()[0]
    core, rest = tumour > 0.9, brain & (tumour < 0.05)
    seen = float(((scan - expected)[core].mean()) / (scan - healthy)[core].mean())
    assert 0.8 < seen < 1.2
    assert float((expected - healthy).abs()[rest].mean()) < 0.04 * float(healthy[rest].mean())


def test_between_an_even_and_a_very_uneven_coil_both_gains_count_by_shares(soft):
    t1, brain, _, scan, _ = soft
    stiff, loose, some, half_as_much = (
        MatchContrast(uneven=uneven)(t1, scan, brain).as_tensor() for uneven in (STIFF, LOOSE, (0.0, 0.02), (0.0, 0.04))
    )
    share = float((some - stiff).norm() / (loose - stiff).norm())
    assert 0.1 < share < 0.9
    torch.testing.assert_close(some, (1.0 - share) * stiff + share * loose, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(half_as_much, (stiff + some) / 2.0, atol=1e-5, rtol=0.0)
