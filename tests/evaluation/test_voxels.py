"""Metrics, thresholds and statistics against scikit-learn, SciPy and numbers by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scripts.errors import InputError
from scripts.evaluation import (
    Conformal,
    DiseasedValidation,
    Fixed,
    HealthyPercentile,
    Otsu,
    Record,
    bootstrap_interval,
    check_splits,
    count_voxels,
    holm,
    mask_metrics,
    paired_tests,
    slice_metrics,
    slice_scores,
    voxel_metrics,
)
from sklearn.metrics import average_precision_score, roc_auc_score


@pytest.fixture
def scored():
    random = np.random.RandomState(0)
    truth = np.zeros((20, 20, 20), dtype=bool)
    truth[2:6, 2:6, 2:6], truth[12:14, 12:14, 12:14] = True, True
    score = random.gamma(1.0, size=truth.shape) + 1.5 * truth
    return score, truth, np.ones_like(truth)


def test_counts_give_the_metrics_of_scikit_learn(scored):
    score, truth, brain = scored
    found = voxel_metrics(count_voxels(score, truth, brain))
    assert found["auprc"] == pytest.approx(average_precision_score(truth.ravel(), score.ravel()), abs=2e-3)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth.ravel(), score.ravel()), abs=1e-3)
    cut = score > found["best_threshold"] * (1 - 1e-3)
    assert found["best_dice"] == pytest.approx(2 * (cut & truth).sum() / (cut.sum() + truth.sum()), abs=5e-3)


def test_counts_of_scans_add_up_to_pooled_ones(scored):
    score, truth, brain = scored
    half = np.arange(20) < 10
    parts = [count_voxels(score[part], truth[part], brain[part]) for part in (half, ~half)]
    together, whole = voxel_metrics(sum(parts)), voxel_metrics(count_voxels(score, truth, brain))
    assert together["auprc"] == pytest.approx(whole["auprc"]) and together["auroc"] == pytest.approx(whole["auroc"])


def test_slices_are_axial_whatever_the_orientation():
    score, truth, brain = np.zeros((4, 5, 6)), np.zeros((4, 5, 6), dtype=bool), np.zeros((4, 5, 6), dtype=bool)
    brain[1:3, 1:4, 1:5] = True
    score[2, 2, 3], score[0, 0, 2], truth[1, 1, 3], truth[1, 2, 4] = 0.7, 9.0, True, True  # 9 is outside the brain
    highest, diseased = slice_scores(score, truth, brain, np.eye(4))
    assert highest.tolist() == [0.0, 0.0, 0.7, 0.0] and diseased.tolist() == [False, False, True, True]
    # The same scan, stored with head-feet as its first axis.
    turned = [volume.transpose(2, 0, 1) for volume in (score, truth, brain)]
    again = slice_scores(*turned, np.eye(4)[:, [2, 0, 1, 3]])
    assert again[0].tolist() == highest.tolist() and again[1].tolist() == diseased.tolist()
    found = slice_metrics(highest, diseased)
    assert found["slice_auroc"] == pytest.approx(0.75) and found["slice_prevalence"] == 0.5
    assert found["slice_auprc"] == pytest.approx(0.5 * 1 + 0.5 * 0.5) and found["slice_best_dice"] == pytest.approx(
        2 / 3
    )
    assert slice_metrics(highest, diseased & False) == {}


def test_detection_by_hand():
    lesion = np.array([True, True, False, False, False]).reshape(5, 1, 1)
    score = np.array([0.9, 0.4, 0.5, 0.1, 0.0]).reshape(5, 1, 1)
    found = voxel_metrics(count_voxels(score, lesion, np.ones_like(lesion)))
    assert found["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["best_dice"] == pytest.approx(0.8) and found["best_threshold"] == pytest.approx(0.4, abs=1e-3)
    # A lesion voxel that the brain mask cut off cannot be found: it is missed, not forgotten.
    cut = voxel_metrics(count_voxels(score, lesion, np.array([True, False, True, True, True]).reshape(5, 1, 1)))
    assert cut["auprc"] < found["auprc"]
    with pytest.raises(ValueError, match="undefined"):
        voxel_metrics(count_voxels(score, np.zeros_like(lesion), np.ones_like(lesion)))


def test_pro_counts_every_lesion_the_same():
    truth = np.zeros((40, 10, 10), dtype=bool)
    truth[:5], truth[30] = True, False
    truth[38, 5, 5] = True  # one voxel
    only_large, only_small = (
        np.where(where, 1.0, 0.0)
        for where in (truth & (np.arange(40) < 10)[:, None, None], truth & (np.arange(40) > 10)[:, None, None])
    )
    large, small = (
        voxel_metrics(count_voxels(score, truth, np.ones_like(truth)))["pro"] for score in (only_large, only_small)
    )
    assert large == pytest.approx(small, abs=0.02) and 0.5 < large < 0.65  # half of the lesions, then chance


def test_a_score_beyond_half_precision_and_zero_are_counted():
    counts = count_voxels(
        np.array([[[1e6, 0.0, -0.0]]]), np.array([[[True, False, False]]]), np.ones((1, 1, 3), dtype=bool)
    )
    assert counts[:2].sum() == 3 and voxel_metrics(counts)["auprc"] == 1.0


def record(name, score, truth, modality="t1", limits=None):
    counts = count_voxels(score, truth, np.ones_like(truth))
    return Record(name, modality, bool(truth.any()), counts, limits or {})


def test_thresholds_know_what_they_may(scored):
    score, truth, _ = scored
    nothing = np.zeros_like(truth)
    healthy = [record(f"h{n}", score * (1 + 0.01 * n), nothing, limits={5.0: 3.0 + n, 1.0: 2.0}) for n in range(19)]
    sick = [record("s", score, truth), record("f", 2.0 * score, truth, "flair")]
    percentile = HealthyPercentile(98.0)
    percentile.fit(healthy + sick)
    assert percentile(sick[0]) == pytest.approx(
        np.percentile(np.concatenate([score.ravel() * (1 + 0.01 * n) for n in range(19)]), 98), rel=2e-3
    )
    calibrated = DiseasedValidation()
    calibrated.fit(healthy + sick)
    assert calibrated(sick[0]) == pytest.approx(voxel_metrics(sick[0].counts)["best_threshold"], rel=1e-2)
    assert calibrated(sick[1]) == pytest.approx(2.0 * calibrated(sick[0]), rel=1e-2)  # of its own modality
    conformal = Conformal(largest_ml=5.0, share=0.95, usual_ml=1.0)
    conformal.fit(healthy + sick)
    assert conformal(sick[0]) == 21.0  # the largest of 19
    with pytest.raises(InputError, match="18 healthy people cannot promise"):
        conformal.fit(healthy[:18])
    with pytest.raises(InputError, match="'validation' has no scan for the rule DiseasedValidation"):
        calibrated.fit(healthy)
    assert Fixed(0.5)(sick[0]) == 0.5


def test_otsu_splits_two_levels():
    score = np.where(np.arange(1000) < 900, 0.1, 0.9).reshape(10, 10, 10) + 0.01 * np.random.RandomState(0).normal(
        size=(10, 10, 10)
    )
    # Otsu's criterion is flat between both levels: any cut of the gap is right.
    threshold = Otsu()(record("a", score, np.zeros((10, 10, 10), dtype=bool)))
    assert threshold < 0.85 and 100 <= (score > threshold).sum() < 105


def test_masks_lesion_by_lesion():
    truth, found = np.zeros((30, 30, 30), dtype=bool), np.zeros((30, 30, 30), dtype=bool)
    truth[5:9, 5:9, 5:9], truth[20:22, 20:22, 20:22] = True, True
    found[5:9, 5:9, 6:10], found[15, 2, 2] = True, True
    said = mask_metrics(found, truth, (1.0, 1.0, 2.0), surface=True)
    assert (
        said["dice"] == pytest.approx(2 * 48 / (64 + 8 + 65))
        and said["sensitivity"] == 0.5
        and said["precision"] == 0.5
    )
    assert said["f1"] == 0.5 and said["false_ml"] == pytest.approx((16 + 1) * 2e-3) and said["hausdorff_95"] > 10.0
    alone = mask_metrics(truth, truth, (1.0, 1.0, 2.0), surface=True)
    assert alone["dice"] == 1.0 and alone["hausdorff_95"] == 0.0 and alone["surface_distance"] == 0.0
    nothing = mask_metrics(np.zeros_like(truth), truth, (1.0, 1.0, 1.0), surface=True)
    # The worst distance that there is: who misses the lesion must not have the better mean.
    assert nothing["dice"] == 0.0 and nothing["found"] == 0.0
    assert nothing["hausdorff_95"] == pytest.approx(np.linalg.norm(truth.shape)) and nothing["hausdorff_95"] > 50.0
    assert "dice" not in mask_metrics(found, np.zeros_like(truth), (1.0, 1.0, 1.0), surface=True)


def test_statistics():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    values = np.random.RandomState(0).normal(0.5, 0.1, size=40)
    low, high = bootstrap_interval(values)
    half = stats.t.ppf(0.975, 39) * values.std(ddof=1) / np.sqrt(40)
    assert low == pytest.approx(values.mean() - half, abs=0.01) and high == pytest.approx(
        values.mean() + half, abs=0.01
    )
    table = pd.DataFrame({"a": values, "b": values - 0.1, "c": values})
    tests = paired_tests(table).set_index(["one", "other"])
    assert tests.loc[("a", "b"), "p_holm"] < 1e-6 and tests.loc[("a", "c"), "p_holm"] == 1.0
    assert tests.loc[("a", "b"), "difference"] == pytest.approx(0.1)


def test_a_scan_in_two_splits_is_refused():
    one = {"subject": "a", "image": "a.nii", "content": "1"}
    check_splits({"training": [one], "test": [{"subject": "b", "image": "b.nii", "content": "2"}]})
    with pytest.raises(InputError, match="the subject a is in 'test' and in 'training'"):
        check_splits({"training": [one], "test": [{**one, "content": "2"}]})
    with pytest.raises(InputError, match=r"the content of b.nii is in 'test' and in 'training'"):
        check_splits({"training": [one], "test": [{"subject": "b", "image": "b.nii", "content": "1"}]})
