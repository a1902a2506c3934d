import hashlib
import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scripts.blur import gaussian_blur
from scripts.errors import InputError
from scripts.evaluation import LesionMask, LesionMaskd, PostProcessing, PostProcessingd, SmoothScore
from scripts.residual import (
    AnomalyScored,
    Calibration,
    FillLesion,
    connected_score,
    difference,
    load_calibration,
    scan_error,
)
from scripts.residual.connected import SMOOTHING
from skimage.filters import apply_hysteresis_threshold
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


def corner_lesion(depth: torch.Tensor) -> torch.Tensor:
    lesion = depth > 5
    lesion[:, 20:], lesion[:, :, 20:], lesion[..., 20:] = False, False, False
    return lesion


def test_a_difference_counts_by_what_is_usual_at_such_places_of_the_scan(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 100)
    lesion = corner_lesion(depth)
    assert 200 < lesion.sum() < 0.1 * brain.sum()
    data = {"expected": healthy, "pred_healthy": healthy, "scan": healthy + noise + 0.1 * lesion, "brain": brain}
    inside, truth = brain.as_tensor() > 0, lesion[brain.as_tensor() > 0].numpy()
    score = AnomalyScored("expected")({**data, "modality": "ct"})["score"].as_tensor()
    assert score.min() >= 0 and not score[~inside].any()
    plain = difference(data["scan"], healthy, brain).as_tensor()
    assert average_precision_score(truth, score[inside].numpy()) > 0.9
    assert average_precision_score(truth, plain[inside].numpy()) < 0.6
    # The lesion is not taken for what is usual.
    with_lesion, without = (scan_error(d, healthy, brain) for d in (data["scan"] - healthy, noise))
    torch.testing.assert_close(with_lesion[lesion], without[lesion], atol=0.25, rtol=0)
    assert without.min() == 1.0 and 3 < without[(depth < 3) & inside].mean() < 9


def test_the_calibration_gives_the_unit_of_each_modality(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 100)
    other = healthy - 0.1 * corner_lesion(depth)
    data = {"expected": healthy, "intact": other, "pred_healthy": healthy, "scan": healthy + noise, "brain": brain}
    calibration = Calibration({"t1": {"limit": 4.0}, "t2": {"limit": 2.0}}, {})

    def score(modality, **settings):
        scored = AnomalyScored("expected", **settings)({**data, "modality": modality})
        return scored["score"].as_tensor()

    torch.testing.assert_close(score("t1", calibration=calibration), score("t1") / 4.0)
    torch.testing.assert_close(score("t2", calibration=calibration), score("t2") / 2.0)
    # A T1w with contrast agent has the limit of a T1w, and a reference of its own.
    torch.testing.assert_close(score("t1c", calibration=calibration), score("t1c") / 4.0)
    own = AnomalyScored("intact")({**data, "modality": "t1c"})["score"].as_tensor()
    assert torch.equal(score("t1c", reference_of={"t1c": "intact"}), own) and not torch.equal(own, score("t1c"))
    assert torch.equal(score("t1", reference_of={"t1c": "intact"}), score("t1"))
    with pytest.raises(InputError, match="knows t1, t2, not ct; run calibrating"):
        score("ct", calibration=calibration)


def test_a_large_lesion_of_one_side_does_not_raise_its_own_unit(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 100)
    one_side = (depth > 6).clone()
    one_side[:, 20:] = False  # all that lies deep on the left
    healthy = healthy - 0.1 * (depth > 6) * brain.as_tensor()  # a place of its own, by its intensity
    units = {}
    for name, lesion in (("none", 0.0 * one_side), ("left", 0.4 * one_side), ("right", 0.4 * one_side.flip(1))):
        units[name] = scan_error(noise + lesion, healthy, brain)
    assert one_side.sum() > 0.08 * brain.sum()
    for side in ("left", "right"):
        torch.testing.assert_close(units[side][depth > 6], units["none"][depth > 6], atol=0.3, rtol=0)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_cutting_a_connected_score_is_hysteresis_thresholding(share):
    noise = torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    smooth = gaussian_blur(noise, 1.5)
    score = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    grown = connected_score(score, share)[0].numpy()
    cleaned = gaussian_filter(score[0].numpy(), SMOOTHING)
    for threshold in (0.3, 0.5, 0.7):
        expected = apply_hysteresis_threshold(cleaned, share * threshold, threshold)
        # skimage's low threshold is open, so is ours, up to rounding.
        assert expected.any() and ((grown > threshold) != expected).mean() < 1e-3


def test_a_faint_border_counts_by_its_core_and_a_faint_place_elsewhere_does_not():
    score = torch.zeros(1, 30, 30, 30)
    score[:, 4:14, 4:14, 4:14] = 0.5
    score[:, 7:11, 7:11, 7:11] = 1.0
    score[:, 18:28, 18:28, 18:28] = 0.5  # as faint, without a core
    score[:, 22, 6, 22] = 1.0  # a single voxel
    grown = connected_score(score, 0.4)
    core = grown[0, 5, 9, 9]
    assert core == pytest.approx(float(grown.max())) and core > 0.95
    assert grown[0, 23, 23, 23] == pytest.approx(0.5, abs=0.01) and grown[0, 22, 6, 22] < 0.6
    # One share that is not reached: the border is 0.5 of the core.
    assert connected_score(score, 0.8)[0, 5, 9, 9] == pytest.approx(0.5 / 0.8, abs=0.02)
    torch.testing.assert_close(connected_score(score * 7.0, 0.4), grown * 7.0)


def test_only_brighter_voxels_count_where_lesions_are_bright(omega):
    brain, healthy, noise, depth = noisy_at_the_edge(omega, 0)
    lesion = corner_lesion(depth)
    found = {}
    for sign in (1.0, -1.0):
        data = {
            "expected": healthy,
            "pred_healthy": healthy,
            "scan": healthy + noise + sign * 0.2 * lesion,
            "brain": brain,
        }
        for modality in ("flair", "ct"):
            score = AnomalyScored("expected", brighter=["t2", "flair"])({**data, "modality": modality})["score"]
            found[sign, modality] = float(score.as_tensor()[lesion].mean())
    assert min(found[1.0, "flair"], found[1.0, "ct"], found[-1.0, "ct"]) > 0.1 and found[-1.0, "flair"] < 0.01
    darker = difference(healthy - 0.2 * lesion, healthy, brain, brighter=True).as_tensor()
    assert not darker.any() and difference(healthy - 0.2 * lesion, healthy, brain).as_tensor()[lesion].min() > 0.19


def test_a_calibration_belongs_to_its_weights(tmp_path):
    weights, others, path = tmp_path / "model.pt", tmp_path / "other.pt", tmp_path / "calibration.json"
    weights.write_bytes(b"these")
    others.write_bytes(b"those")
    about = {"sha256": hashlib.sha256(b"these").hexdigest()}
    path.write_text(json.dumps({"about": {**about, "settings": {"bend": 1.0}}, "modalities": {"t1": {"limit": 2.0}}}))
    # A limit holds for the settings that it was found with.
    for other in ({"bend": 2.0}, {}, {"bend": 1.0, "share": 0.4}):
        with pytest.raises(InputError, match="other values of (bend|share); run calibrating"):
            load_calibration(path, weights, other)
    path.write_text(json.dumps({"about": about, "modalities": {"t1": {"limit": 2.0}}}))
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


@pytest.mark.parametrize("both_sides", [False, True])
def test_a_lesion_is_filled_from_the_other_side_where_that_is_healthy(omega, both_sides):
    # A brain whose sides are alike, and whose right side lies in a coil that is a tenth brighter.
    generator = torch.Generator().manual_seed(1)
    half = 0.5 + 0.3 * torch.rand((1, 20, 40, 40), generator=generator)
    coil = torch.cat([torch.ones(20), torch.full((20,), 1.1)])[None, :, None, None]
    healthy = torch.cat([half, half.flip(1)], dim=1) * coil * omega.as_tensor()
    lesion = torch.zeros(omega.shape, dtype=torch.bool)
    lesion[:, 26:31, 15:25, 15:25] = True
    if both_sides:
        lesion[:, 9:14, 15:20, 15:25] = True  # the partner of one half of it
    scan = MetaTensor(torch.where(lesion, 0.05, healthy), affine=omega.affine)
    blurred = MetaTensor(0.66 * omega.as_tensor(), affine=omega.affine)  # an intact scan that knows nothing but a mean
    plane = np.diag([-1.0, 1.0, 1.0, 1.0])
    filled = FillLesion(edge=0.0)(blurred, scan, lesion, plane).as_tensor()
    partner_ill = lesion & lesion.flip(1)
    one_sided = lesion & ~partner_ill
    one_sided[:, :20] = False
    torch.testing.assert_close(filled[one_sided], healthy[one_sided], rtol=2e-2, atol=0)
    assert bool(partner_ill.any()) == both_sides
    if both_sides:
        assert filled[partner_ill].std() < 1e-3 < healthy[partner_ill].std()  # the intact scan
    assert torch.equal(filled[~lesion], scan.as_tensor()[~lesion])


def test_a_lesion_at_the_border_of_the_scan_is_filled(omega):
    cut = MetaTensor(torch.full((1, 20, 12, 12), 5.0), affine=omega.affine)
    lesion = torch.zeros(cut.shape, dtype=torch.bool)
    lesion[:, :4, :4, :4] = True
    scan = MetaTensor(torch.where(lesion, 1.0, cut), affine=cut.affine)
    plane = np.diag([-1.0, 1.0, 1.0, 1.0])
    plane[0, 3] = -20.0  # the middle of the grid
    assert FillLesion(2.0)(cut, scan, lesion, plane).as_tensor()[lesion].numpy() == pytest.approx(5.0, rel=1e-3)
