"""The losses against cases computed by hand."""

import math

import pytest
import torch
from scripts.learning import ContrastLoss, ReconstructionLoss, UNALoss

SHAPE = (1, 1, 4, 4, 4)


def volume(value=0.0, **voxels) -> torch.Tensor:
    out = torch.full(SHAPE, float(value))
    for key, v in voxels.items():
        out[(0, 0, *[int(c) for c in key[1:]])] = v
    return out


HEALTHY, DISEASED = torch.zeros(SHAPE), torch.ones(SHAPE)


def test_reconstruction_of_a_constant_error():
    # |error| = 0.5 everywhere, no gradient: 0.5; inside a lesion of 8 voxels the weight is 1 + 1.
    loss = ReconstructionLoss()
    anomaly = volume()
    assert math.isclose(loss(volume(0.5), volume(), anomaly, HEALTHY), 0.5)
    anomaly[..., :2, :2, :2] = 1.0
    assert math.isclose(loss(volume(0.5), volume(), anomaly, HEALTHY), 0.5 * (64 + 8) / 64)
    # A real diseased scan is not supervised inside: 56 of 64 voxels remain.
    assert math.isclose(loss(volume(0.5), volume(), anomaly, DISEASED), 0.5 * 56 / 64)


def test_reconstruction_of_one_wrong_voxel():
    # One inner voxel off by 1: 1 from the intensity, 6 from its six differences, over 64 voxels.
    wrong = volume(p111=1.0)
    assert math.isclose(ReconstructionLoss()(wrong, volume(), volume(), HEALTHY), 7 / 64)
    assert math.isclose(ReconstructionLoss(lambda_grad=0.0)(wrong, volume(), volume(), HEALTHY), 1 / 64)


@pytest.mark.parametrize("lambda_p", [0.0, 1.0])
def test_lesion_voxels_of_a_diseased_scan_carry_no_gradient(lambda_p):
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(SHAPE, generator=generator, requires_grad=True)
    anomaly = (torch.rand(SHAPE, generator=generator) > 0.6).float()
    ReconstructionLoss(lambda_p=lambda_p)(pred, torch.rand(SHAPE, generator=generator), anomaly, DISEASED).backward()
    assert not pred.grad[anomaly == 1].any()
    assert pred.grad[anomaly == 0].count_nonzero() > 0.8 * (anomaly == 0).sum()


def test_reconstruction_mixes_healthy_and_diseased_in_a_batch():
    pred, target, anomaly = volume(0.5).repeat(2, 1, 1, 1, 1), torch.zeros(2, *SHAPE[1:]), torch.ones(2, *SHAPE[1:])
    both = ReconstructionLoss()(pred, target, anomaly, torch.cat([HEALTHY, DISEASED]))
    assert math.isclose(both, (0.5 * 2 + 0.0) / 2)


def test_a_painted_lesion_beside_a_real_one_is_supervised():
    # A patient: 8 voxels of a real lesion have no truth, 8 of a painted one count twice.
    anomaly, diseased = volume(), volume()
    anomaly[..., :2, :2, :2] = anomaly[..., 2:, 2:, 2:] = 1.0
    diseased[..., :2, :2, :2] = 1.0
    loss = ReconstructionLoss()(volume(0.5), volume(), anomaly, diseased)
    assert math.isclose(loss, 0.5 * (48 + 2 * 8) / 64)


def test_contrast_by_hand():
    # Two lesion voxels, mirror healthy: -log(S(m) / (S(m) + S(x))), with out * mirror = 0.48, 0.32 and out * in = 0.12, 0.08.
    pred, image, mirrored, anomaly = volume(0.3), volume(0.3), volume(0.3), volume()
    for voxel, (o, m, x) in {"p000": (0.6, 0.8, 0.2), "p123": (0.4, 0.8, 0.2)}.items():
        index = (0, 0, *[int(c) for c in voxel[1:]])
        pred[index], mirrored[index], image[index], anomaly[index] = o, m, x, 1.0
    agree, against = math.exp(0.48) + math.exp(0.32), math.exp(0.12) + math.exp(0.08)
    expected = -math.log(agree / (agree + against)) * 2 / 64
    assert math.isclose(ContrastLoss()(pred, image, mirrored, anomaly, volume()), expected, rel_tol=1e-5)
    # With alpha = beta = gamma = t the exponents are divided by t.
    agree, against = math.exp(0.96) + math.exp(0.64), math.exp(0.24) + math.exp(0.16)
    expected = -math.log(agree / (agree + against)) * 2 / 64
    assert math.isclose(ContrastLoss(0.5, 0.5, 0.5)(pred, image, mirrored, anomaly, volume()), expected, rel_tol=1e-5)


def test_contrast_leaves_out_what_is_diseased_on_both_sides_and_is_zero_without_a_lesion():
    anomaly = volume(p000=1.0, p111=1.0)
    pred = volume(0.5).requires_grad_()
    loss = ContrastLoss()(pred, volume(0.2), volume(0.8), anomaly, volume(p111=1.0))
    loss.backward()
    assert pred.grad[0, 0, 0, 0, 0] != 0 and pred.grad.count_nonzero() == 1
    assert ContrastLoss()(volume(0.5), volume(0.2), volume(0.8), volume(), volume()) == 0


def test_contrast_pulls_the_lesion_towards_the_mirror():
    # The mirror is brighter than the lesion: the loss falls as the reconstruction brightens.
    pred = volume(0.5).requires_grad_()
    ContrastLoss()(pred, volume(0.2), volume(0.8), volume(p000=1.0), volume()).backward()
    assert pred.grad[0, 0, 0, 0, 0] < 0


def test_attention_counts_a_lesion_more_and_nothing_else():
    anomaly = volume(p000=1.0, p111=0.5)
    attention = volume(1.0, p000=4.0, p111=2.0)
    # 1 + 1 x 1 x 4 and 1 + 1 x 0.5 x 2, the other 62 voxels 1.
    loss = ReconstructionLoss()(volume(0.5), volume(), anomaly, HEALTHY, attention)
    assert math.isclose(loss, 0.5 * (62 + 5 + 2) / 64)
    # A diseased scan is unsupervised in its lesion, however small.
    assert math.isclose(ReconstructionLoss()(volume(0.5), volume(), anomaly, DISEASED, attention), 0.5 * 62.5 / 64)


def test_total_is_the_weighted_sum():
    generator = torch.Generator().manual_seed(1)
    target = {key: torch.rand(SHAPE, generator=generator) for key in ("healthy", "intact", "scan", "mirrored")}
    target |= {"anomaly": volume(p000=1.0, p121=0.5), "mirrored_anomaly": volume(), "diseased": HEALTHY}
    target["attention"] = volume(1.0)
    pred = torch.rand((1, 2, 4, 4, 4), generator=generator)
    reconstruction, contrast = ReconstructionLoss(), ContrastLoss()
    parts = (
        reconstruction(pred[:, :1], target["healthy"], target["anomaly"], HEALTHY),
        contrast(pred[:, :1], target["scan"], target["mirrored"], target["anomaly"], target["mirrored_anomaly"]),
        reconstruction(pred[:, 1:], target["intact"], target["anomaly"], HEALTHY),
    )
    for weight, intact in ((0.0, 0.0), (2.0, 0.0), (2.0, 0.5)):
        total = UNALoss(reconstruction, contrast, weight, intact)(pred, target)
        torch.testing.assert_close(total, parts[0] + weight * parts[1] + intact * parts[2])
    assert parts[1] > 0 and parts[2] > 0
