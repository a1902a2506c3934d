import hashlib
import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt
from scripts.appearance.blur import gaussian_blur
from scripts.errors import InputError
from scripts.evaluation import LesionMask, LesionMaskd, PostProcessing, PostProcessingd, SmoothScore
from scripts.residual import (
    AnomalyScored,
    Calibration,
    FillLesion,
    UsualError,
    difference,
    extreme_of_other_side,
    load_calibration,
    scan_error,
)
from sklearn.metrics import average_precision_score


def on_grid(values: torch.Tensor, spacing) -> MetaTensor:
    sizes = torch.as_tensor(np.broadcast_to(spacing, 3).copy(), dtype=torch.float64)
    affine = torch.diag(torch.cat([sizes, torch.ones(1, dtype=torch.float64)]))
    affine[:3, 3] = sizes / 2 - 30.0  # the same 60 mm whatever the voxel size
    return MetaTensor(values, affine=affine)


def test_score_is_the_difference_inside_the_brain():
    scan, healthy = torch.tensor([[[[0.9, 0.2, 0.5]]]]), torch.tensor([[[[0.4, 0.3, -1.0]]]])
    brain = torch.tensor([[[[1.0, 0.0, 1.0]]]])
    torch.testing.assert_close(difference(scan, healthy, brain), torch.tensor([[[[0.5, 0.0, 1.5]]]]))
    data = {"one": healthy, "other": scan, "scan": scan, "brain": brain}
    torch.testing.assert_close(AnomalyScored("one")(data)["score"], torch.tensor([[[[0.5, 0.0, 1.5]]]]))


def test_mask_cuts_and_drops_by_volume_in_ml():
    score = torch.zeros(1, 30, 30, 30)
    score[:, 2:8, 2:8, 2:8] = 0.5  # 216 voxels
    score[:, 20:24, 20:24, 20:24] = 0.5  # 64 voxels
    score[:, 15, 15, 15] = 1.0  # speckle

    def volume_at(spacing: float, min_volume_ml: float, radius: float = 0.0) -> int:
        return int(LesionMask(0.3, min_volume_ml)(SmoothScore(radius)(on_grid(score, spacing))).sum())

    # 0.1 ml are 100 voxels of 1 mm, and 12.5 of 2 mm.
    assert volume_at(1.0, 0.1) == 216
    assert volume_at(2.0, 0.1) == 216 + 64
    assert volume_at(1.0, 0.0) == 216 + 64 + 1
    assert 0.6 * 280 < volume_at(1.0, 0.0, radius=1.0) < 280  # speckle gone, corners rounded
    assert volume_at(2.0, 0.0, radius=1.0) == volume_at(1.0, 0.0)  # less than a voxel: nothing to smooth


def test_erosion_counts_mm_from_the_surface_and_reaches_every_score():
    grid = torch.stack(torch.meshgrid(*[torch.arange(30.0)] * 3, indexing="ij"))
    radius = (grid - 14.5).norm(dim=0)[None] * 2.0  # mm
    brain = on_grid((radius < 24.0).float(), 2.0)
    scores = {"one": brain * 0.5, "other": brain * 2.0, "brain": brain}
    shared = PostProcessing(erosion=6.0, smoothing=0.0, min_volume_ml=0.0)
    done = PostProcessingd(["one", "other"], shared)(scores)
    for key, level in (("one", 0.5), ("other", 2.0)):
        assert float(done[key][radius > 20.0].max()) == 0.0
        assert float(done[key][radius < 16.0].min()) == level
    # What a reader sees is what the mask is cut from.
    cut = LesionMaskd("one", shared, threshold=0.3)(scores)
    assert torch.equal(cut["one"], done["one"]) and torch.equal(cut["lesion"] > 0, done["one"] > 0.3)


def test_the_volume_of_one_score_does_not_depend_on_the_grid_of_the_scan():
    generator = torch.Generator().manual_seed(0)
    noise = gaussian_blur(torch.randn(1, 30, 30, 30, generator=generator), 2.5)
    score = on_grid(noise / noise.std(), 2.0)
    volumes = {}
    for spacing in ((0.5,) * 3, (1.0,) * 3, (2.0,) * 3, (1.0, 1.0, 5.0)):
        grid = on_grid(torch.zeros(1, *[round(60 / s) for s in spacing]), spacing)
        mask = LesionMask(1.0, 0.5)(score, grid)
        assert mask.shape == grid.shape
        volumes[spacing] = float(mask.sum()) * np.prod(spacing) / 1000
    finest = volumes[(0.5,) * 3]
    assert finest > 1.0
    assert all(abs(ml / finest - 1) < 0.06 for ml in volumes.values()), volumes


def test_a_dropped_lesion_does_not_come_back_on_a_finer_grid():
    score = torch.zeros(1, 30, 30, 30)
    score[:, 10:12, 10:12, 10:12] = 5.0  # 0.064 ml of a high score
    grid = on_grid(torch.zeros(1, 120, 120, 120), 0.5)
    assert LesionMask(1.0, 0.0)(on_grid(score, 2.0), grid).any()
    assert not LesionMask(1.0, 0.1)(on_grid(score, 2.0), grid).any()


def noisy_at_the_edge(omega, seed: int):
    """A healthy T1w, and an honest difference from it that is six times as large at the edge of the brain as inside."""
    brain = MetaTensor((omega.as_tensor() > 0).float(), affine=omega.affine)
    depth = torch.as_tensor(distance_transform_edt(brain.as_tensor()[0].numpy()))[None].float()
    noise = torch.randn(brain.shape, generator=torch.Generator().manual_seed(seed))
    return brain, 0.75 * brain, noise * torch.where(depth < 3, 0.12, 0.02) * brain.as_tensor(), depth


def people(omega, number: int):
    for seed in range(number):
        brain, healthy, noise, _ = noisy_at_the_edge(omega, seed)
        yield UsualError.sums(noise, healthy, brain)


def test_the_usual_error_is_that_of_other_people_at_the_place(omega):
    brain, healthy, _, depth = noisy_at_the_edge(omega, 100)
    usual = UsualError.fit(people(omega, 8))(healthy, brain)
    expected = (2 / np.pi) ** 0.5  # E|x| of a standard normal
    deep, edge = (depth > 9), (depth < 2) & (brain.as_tensor() > 0)
    assert float(usual[deep].mean()) == pytest.approx(0.02 * expected, rel=0.5)
    assert float(usual[edge].mean()) == pytest.approx(0.12 * expected, rel=0.25)
    assert (usual[brain == 0] == 1.0).all()
    again = UsualError(json.loads(json.dumps(UsualError.fit(people(omega, 8)).table.tolist())))(healthy, brain)
    torch.testing.assert_close(again, usual)


def test_a_difference_counts_by_what_is_usual_at_its_place(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 100)
    lesion = depth > 5
    lesion[:, 20:], lesion[:, :, 20:], lesion[..., 20:] = False, False, False
    assert 200 < lesion.sum() < 0.1 * brain.sum()
    data = {
        "expected": healthy,
        "pred_healthy": healthy,
        "scan": healthy + noise + 0.1 * lesion,
        "brain": brain,
        "modality": "ct",
    }
    table = UsualError.fit(people(omega, 8)).table.tolist()
    calibration = Calibration({"ct": {"usual": {"expected": table}, "limit": 4.0}}, {})
    inside, truth = brain.as_tensor() > 0, lesion[brain.as_tensor() > 0].numpy()

    def precision(known):
        score = AnomalyScored("expected", calibration=known)(data)["score"].as_tensor()
        assert score.min() >= 0 and not score[~inside].any()
        return average_precision_score(truth, score[inside].numpy())

    assert precision(calibration) > 0.85 > 0.6 > precision(None)

    # However large a lesion is, it cannot raise its own unit: the score grows with the difference.
    def mean_in_lesion(size: float) -> float:
        scan = healthy + size * lesion
        return float(
            AnomalyScored("expected", calibration=calibration)({**data, "scan": scan})["score"]
            .as_tensor()[lesion]
            .mean()
        )

    assert mean_in_lesion(0.4) == pytest.approx(2 * mean_in_lesion(0.2), rel=1e-4)
    with pytest.raises(InputError, match="knows ct, not t1; run calibrating"):
        AnomalyScored("expected", calibration=calibration)({**data, "modality": "t1"})
    only = AnomalyScored(["expected", "pred_healthy"], {"ct": ["expected"]}, calibration=calibration)
    alone = AnomalyScored("expected", calibration=calibration)
    assert torch.equal(only(data)["score"].as_tensor(), alone(data)["score"].as_tensor())


def test_what_one_reference_alone_sees_counts_little(omega):
    """The score is the geometric mean: an error of one reference does not stand where the other agrees with the scan."""
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 100)
    lesion, error = (depth > 7).clone(), (depth > 7).clone()
    lesion[:, 20:], error[:, :20] = False, False
    scan = healthy + noise - 0.3 * lesion
    data = {"scan": scan, "brain": brain, "one": healthy, "other": healthy - 0.3 * error}
    both, one, other = (
        AnomalyScored(keys)(data)["score"].as_tensor() for keys in (["one", "other"], ["one"], ["other"])
    )
    torch.testing.assert_close(both, (one * other).sqrt())
    assert float(both[lesion].mean()) > 0.25 and float(other[error].mean()) > 0.25 > 0.1 > float(both[error].mean())


def test_a_weighed_modality_is_its_own_measure(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 100)
    lesion = depth > 5
    lesion[:, 20:], lesion[:, :, 20:], lesion[..., 20:] = False, False, False
    data = {"expected": healthy, "pred_healthy": healthy, "scan": healthy + noise + 0.1 * lesion, "brain": brain}
    inside, truth = brain.as_tensor() > 0, lesion[brain.as_tensor() > 0].numpy()

    def precision(**settings):
        score = AnomalyScored("expected", **settings)({**data, "modality": "ct"})["score"].as_tensor()
        assert score.min() >= 0 and not score[~inside].any()
        return average_precision_score(truth, score[inside].numpy())

    assert precision(weighed=["ct"]) > 0.9 > 0.6 > precision()
    assert precision(weighed=["flair"]) == precision()
    # The lesion is not taken for what is usual.
    with_lesion, without = (scan_error(d, healthy, brain) for d in (data["scan"] - healthy, noise))
    torch.testing.assert_close(with_lesion[lesion], without[lesion], atol=0.2, rtol=0)
    assert without.min() == 1.0 and 3 < without[(depth < 3) & inside].mean() < 9


def test_only_brighter_voxels_count_where_lesions_are_bright(omega):
    brain, healthy, _, depth = noisy_at_the_edge(omega, 0)
    change = torch.where(depth > 5, 0.2, torch.where(depth > 3, -0.2, 0.0)) * brain.as_tensor()
    for modality, found in (("flair", change > 0.1), ("ct", change.abs() > 0.1)):
        data = {"expected": healthy, "scan": healthy + change, "brain": brain, "modality": modality}
        score = AnomalyScored("expected", brighter=["t2", "flair"])(data)["score"]
        assert torch.equal(score.as_tensor() > 0.1, found)


def test_what_is_as_dark_on_the_other_side_is_anatomy():
    """Two dark spaces that are nearly mirror images, a dark lesion on one side, and a bright one on both."""
    healthy = torch.full((1, 40, 40, 40), 0.8)
    brain = torch.zeros_like(healthy)
    brain[:, 2:38, 2:38, 2:38] = 1.0
    scan = healthy * brain
    scan[:, 14:18, 14:22, 14:22] = 0.2  # mirrored: 22 to 26
    scan[:, 23:27, 14:22, 14:22] = 0.2
    scan[:, 12:16, 26:30, 14:22] = 0.2
    scan[:, 12:28, 14:22, 26:30] = 1.0
    scan[:, 3:6, 14:22, 14:22] = 0.2  # a sulcus on both sides, near the surface
    scan[:, 34:37, 14:22, 14:22] = 0.2
    data = {"scan": scan, "mirrored": scan.flip(1), "expected": healthy, "brain": brain, "modality": "t1"}
    settings = {"symmetric": {"t1": 1, "t2": 1}, "brighter": ["t2"], "depth": 5}
    score = AnomalyScored("expected", **settings)(data)["score"][0]
    assert not score[14:18, 14:22, 14:22].any() and not score[23:27, 14:22, 14:22].any()
    torch.testing.assert_close(score[12:16, 26:30, 14:22], torch.full((4, 4, 8), 0.6))
    torch.testing.assert_close(score[12:28, 14:22, 26:30], torch.full((16, 8, 4), 0.2))
    torch.testing.assert_close(score[3:6, 14:22, 14:22], torch.full((3, 8, 8), 0.6))
    plain = AnomalyScored("expected", **settings)({**data, "modality": "ct"})["score"]
    torch.testing.assert_close(plain, difference(scan, healthy, brain))
    # The negative of the scan, in which only bright lesions count.
    inverse = {
        "scan": (1 - scan) * brain,
        "mirrored": ((1 - scan) * brain).flip(1),
        "expected": 1 - healthy,
        "brain": brain,
    }
    bright = AnomalyScored("expected", **settings)({**inverse, "modality": "t2"})["score"][0]
    assert not bright[14:18, 14:22, 14:22].any() and not bright[12:28, 14:22, 26:30].any()
    torch.testing.assert_close(bright[12:16, 26:30, 14:22], torch.full((4, 4, 8), 0.6))
    # What is too narrow on the other side says nothing: the 4 voxels of a space hold a cube of 3, but none of 5.
    wide, narrow = (AnomalyScored("expected", **settings, radius=radius)(data)["score"][0] for radius in (1, 2))
    assert not wide[14:18, 14:22, 14:22].any() and float(narrow[14:18, 14:22, 14:22].min()) > 0.5
    # A space that is deeper than that of the other side counts as far as it is deeper; nothing is black because it is outside.
    scan[:, 14:18, 14:22, 14:22] = 0.05
    score = AnomalyScored("expected", **settings)(data)["score"][0]
    torch.testing.assert_close(score[15:17, 15:21, 15:21], torch.full((2, 6, 6), 0.15))
    darkest = extreme_of_other_side(scan.flip(1) * (healthy.cumsum(1) > 16), brain, 1, 5)[0]  # one half is cut off
    assert float(darkest.min()) >= 0.05 and darkest[:3].isinf().all()


def test_a_calibration_belongs_to_its_weights(tmp_path):
    weights, others, path = tmp_path / "model.pt", tmp_path / "other.pt", tmp_path / "calibration.json"
    weights.write_bytes(b"these")
    others.write_bytes(b"those")
    table = UsualError.fit([]).table.tolist()
    about = {"sha256": hashlib.sha256(b"these").hexdigest()}
    known = {"limit": 2.0, "usual": {"expected": table}}
    path.write_text(json.dumps({"about": about, "modalities": {"t1": known}}))
    assert load_calibration(path, weights).limit == {"t1": 2.0}
    with pytest.raises(InputError, match=r"other weights.*run calibrating.*calibration"):
        load_calibration(path, others)
    path.write_text("{}")
    with pytest.raises(InputError, match="no calibration"):
        load_calibration(path, weights)


def test_a_filled_scan_is_the_scan_outside_and_healthy_inside(omega):
    generator = torch.Generator().manual_seed(0)
    healthy = (0.5 + 0.3 * torch.rand(omega.shape, generator=generator)) * omega.as_tensor()
    lesion = torch.zeros(omega.shape, dtype=torch.bool)
    lesion[:, 14:20, 15:25, 15:25] = True
    scan = MetaTensor(1000.0 * torch.where(lesion, 0.1, healthy), affine=omega.affine)
    filled = FillLesion(edge=2.0)(MetaTensor(healthy, affine=omega.affine), scan, lesion).as_tensor()
    torch.testing.assert_close(filled[lesion], 1000.0 * healthy[lesion], rtol=1e-3, atol=1e-3)
    away = torch.as_tensor(distance_transform_edt(~lesion[0].numpy()))[None] >= 2.0
    assert torch.equal(filled[away], scan.as_tensor()[away])
    assert torch.equal(FillLesion(2.0)(scan, scan, torch.zeros_like(lesion)).as_tensor(), scan.as_tensor())
