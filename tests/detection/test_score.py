import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt
from scripts.detection import AnomalyScored, LesionMask, anomaly_score, usual_error
from sklearn.metrics import average_precision_score


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


def noisy_at_the_edge(omega):
    """A healthy T1w, and an honest difference from it that is six times as large at the edge of the brain as inside."""
    brain = MetaTensor((omega.as_tensor() > 0).float(), affine=omega.affine)
    depth = torch.as_tensor(distance_transform_edt(brain.as_tensor()[0].numpy()))[None].float()
    noise = torch.randn(brain.shape, generator=torch.Generator().manual_seed(0))
    return brain, 0.75 * brain, noise * torch.where(depth < 3, 0.12, 0.02) * brain.as_tensor(), depth


def test_a_difference_counts_by_what_is_usual_at_its_place(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega)
    lesion = depth > 5
    lesion[:, 20:], lesion[:, :, 20:], lesion[..., 20:] = False, False, False
    assert 200 < lesion.sum() < 0.1 * brain.sum()
    scan = healthy + noise + 0.1 * lesion
    data = {"expected": healthy, "pred": healthy, "image": scan, "brain": brain, "modality": "ct"}
    inside, truth = brain.as_tensor() > 0, lesion[brain.as_tensor() > 0].numpy()

    def precision(**settings):
        score = AnomalyScored("expected", **settings)(data)["anomaly"]
        assert score.min() >= 0 and score.max() <= 1 and not score[~inside].any()
        return average_precision_score(truth, score[inside].numpy())

    assert precision(weighed=["ct"]) > 0.9 > 0.6 > precision()
    assert precision(weighed=["flair"]) == precision()
    # The lesion is not taken for what is usual.
    with_lesion, without = (usual_error(d, healthy, brain) for d in (scan - healthy, noise))
    torch.testing.assert_close(with_lesion[lesion], without[lesion], atol=0.2, rtol=0)
    assert without.min() == 1.0 and 3 < without[(depth < 3) & inside].mean() < 9


def test_only_brighter_voxels_count_where_lesions_are_bright(omega):
    brain, healthy, _, depth = noisy_at_the_edge(omega)
    change = torch.where(depth > 5, 0.2, torch.where(depth > 3, -0.2, 0.0)) * brain.as_tensor()
    for modality, found in (("flair", change > 0.1), ("ct", change.abs() > 0.1)):
        data = {"expected": healthy, "pred": healthy, "image": healthy + change, "brain": brain, "modality": modality}
        assert torch.equal(AnomalyScored("expected", brighter=["t2", "flair"])(data)["anomaly"] > 0.1, found)
