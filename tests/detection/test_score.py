import torch
from monai.data import MetaTensor
from scripts.detection import AnomalyScored, LesionMask, anomaly_score


def test_score_is_the_difference_inside_the_brain():
    scan, healthy = torch.tensor([[[[0.9, 0.2, 0.5]]]]), torch.tensor([[[[0.4, 0.3, -1.0]]]])
    brain = torch.tensor([[[[1.0, 0.0, 1.0]]]])
    torch.testing.assert_close(anomaly_score(scan, healthy, brain), torch.tensor([[[[0.5, 0.0, 1.0]]]]))
    out = AnomalyScored("pred")({"pred": healthy, "image": scan, "brain": brain})
    torch.testing.assert_close(out["anomaly"], torch.tensor([[[[0.5, 0.0, 1.0]]]]))


def test_mask_smooths_cuts_and_drops_by_volume_in_ml():
    score = torch.zeros(1, 30, 30, 30)
    score[:, 2:8, 2:8, 2:8] = 0.5  # 216 voxels
    score[:, 20:24, 20:24, 20:24] = 0.5  # 64 voxels
    score[:, 15, 15, 15] = 1.0  # speckle

    def volume_at(spacing: float, **settings) -> int:
        affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
        return int(LesionMask(threshold=0.3, **settings)(MetaTensor(score, affine=affine)).sum())

    # 0.1 ml are 100 voxels of 1 mm, and 12.5 of 2 mm.
    assert volume_at(1.0, min_volume_ml=0.1, median_radius=0) == 216
    assert volume_at(2.0, min_volume_ml=0.1, median_radius=0) == 216 + 64
    assert volume_at(1.0, min_volume_ml=0.0, median_radius=0) == 216 + 64 + 1
    smoothed = volume_at(1.0, min_volume_ml=0.0, median_radius=1)
    assert 0.6 * 280 < smoothed < 280  # speckle gone, corners rounded
