import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.detection import BaselineScoresd, detection_quality, equalized_intensity


def test_equalized_intensity_is_the_rank_in_the_brain(omega):
    image = MetaTensor(torch.rand(omega.shape, generator=torch.Generator().manual_seed(0)) ** 1.5, affine=omega.affine)
    rank = equalized_intensity(image, omega)
    inside = omega > 0
    order = torch.as_tensor(image[inside]).argsort().argsort() / float(inside.sum())
    torch.testing.assert_close(torch.as_tensor(rank[inside]), order.float(), atol=0.02, rtol=0)
    assert float(rank[~inside].abs().max()) == 0.0
    assert float(equalized_intensity(image, torch.zeros_like(omega)).max()) == 0.0


def test_each_baseline_finds_its_own_lesion(omega):
    generator = torch.Generator().manual_seed(0)
    image = (0.5 + 0.02 * torch.randn(omega.shape, generator=generator)) * omega
    mirrored = image.flip(1)
    lesion = torch.zeros(omega.shape, dtype=torch.bool)
    lesion[:, 10:14, 18:22, 18:22] = True
    for change, best in ((0.3, "hyper"), (-0.3, "hypo")):
        data = {"scan": image + change * lesion, "mirrored": mirrored, "brain": omega}
        scores = BaselineScoresd("scan")(data)
        quality = {
            name: detection_quality(*(np.asarray(v) for v in (scores[name], lesion, omega > 0)))["auprc"]
            for name in ("hyper", "hypo", "contralateral")
        }
        other = {"hyper": "hypo", "hypo": "hyper"}[best]
        assert quality[best] > 0.99 and quality["contralateral"] > 0.99 and quality[other] < 0.01


def test_detection_quality_by_hand():
    lesion = np.array([True, True, False, False, False])
    quality = detection_quality(np.array([0.9, 0.4, 0.5, 0.1, 0.0]), lesion, np.ones(5, dtype=bool))
    assert quality["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert quality["best_dice"] == pytest.approx(0.8) and quality["best_threshold"] == pytest.approx(0.4)
    # A lesion voxel that the brain mask cut off cannot be found: it is missed, not forgotten.
    cut = detection_quality(np.array([0.9, 0.4, 0.5, 0.1, 0.0]), lesion, np.array([True, False, True, True, True]))
    assert cut["auprc"] < quality["auprc"]
    with pytest.raises(ValueError, match="no lesion"):
        detection_quality(np.zeros(5), np.zeros(5, dtype=bool), np.ones(5, dtype=bool))
