"""The frontier where the answer is known: a score whose healthy people and lesions are made by hand."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.evaluation import Frontier, PostProcessing

AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])  # a voxel is 1 ml


def volume(values) -> MetaTensor:
    return MetaTensor(torch.as_tensor(values, dtype=torch.float32), affine=torch.from_numpy(AFFINE))


def healthy_score(level: float) -> MetaTensor:
    """A healthy person's score: 6 voxels at a level, all else below; 5 ml are left from the level on."""
    score = torch.zeros(1, 10, 10, 10)
    score[0, 0, 0, :6] = level
    return volume(score)


def case(entry, scores):
    whole = volume(torch.ones(1, 10, 10, 10))
    return {"subject": entry["subject"], "modality": "t1", "brain": whole, "original": whole, "scores": scores}


@pytest.fixture
def entries(tmp_path):
    people = [{"subject": f"person{n}", "diseased": False, "group": "old" if n < 20 else "young"} for n in range(40)]
    mask = np.zeros((10, 10, 10), dtype=np.uint8)
    mask[4:6, 4:6, 4:6] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "lesion.nii.gz")
    return [*people, {"subject": "patient", "lesion": str(tmp_path / "lesion.nii.gz")}]


def run(entries, folder, lesion_score, factor=1.0):
    handler = Frontier(entries, PostProcessing(0.0, 0.0, 0.1), folder)
    for number, entry in enumerate(entries[:-1]):
        handler.note(case(entry, {"score": healthy_score((1.0 + number / 100) * factor)}))
    handler.note(case(entries[-1], {"score": lesion_score * factor}))
    handler.write(Engine(lambda *_: None))
    return pd.read_csv(folder / "frontier.csv").iloc[0], pd.read_csv(folder / "lesions.csv").iloc[0]


def test_half_of_the_people_set_the_limit_and_the_others_judge_it(entries, tmp_path):
    score = torch.zeros(1, 10, 10, 10)
    score[0, 4:6, 4:6, 4:6] = 2.0  # above every healthy person
    score[0, 8, 8, :4] = 1.1  # false, and below most limits
    row, lesion = run(entries, tmp_path, volume(score))
    # Of 20 people the largest one's limit promises 95 %: among 40 others nearly all are within.
    assert row["people"] == 40 and row["lesions"] == 1
    assert 0.9 < row["within"] < 1.0 and row["within_low"] <= row["within"] <= row["within_high"]
    # The old have the lower scores.
    assert row["within old"] == 1.0 and row["within young"] < 1.0
    assert 1.3 < row["limit"] < 1.4
    assert lesion["dice"] == pytest.approx(1.0) and lesion["best_dice"] == pytest.approx(1.0)
    assert (tmp_path / "frontier.png").stat().st_size > 10_000
    curve = pd.read_csv(tmp_path / "curves.csv")
    # The false voxels fall away when the limit passes 1.1: half of the people are at 1.2 and more.
    assert curve["dice"].iloc[0] == pytest.approx(2 * 8 / (8 + 12)) and curve["dice"].iloc[-1] == pytest.approx(1.0)
    assert curve["within"].is_monotonic_increasing and curve["within"].iloc[-1] == 1.0


def test_the_unit_of_the_score_changes_nothing(entries, tmp_path):
    random = torch.Generator().manual_seed(0)
    score = volume(torch.rand(1, 10, 10, 10, generator=random) * 2.0)
    one, _ = run(entries, tmp_path / "one", score)
    other, _ = run(entries, tmp_path / "other", score, factor=64.0)
    for key in ("within", "dice", "recall", "best_dice", "auprc"):
        assert one[key] == pytest.approx(other[key], rel=1e-6)
    assert other["limit"] == pytest.approx(64 * one["limit"], rel=1e-5)


def test_with_too_few_people_only_the_ranking_is_known(entries, tmp_path):
    few = [*entries[:30], entries[-1]]
    score = torch.zeros(1, 10, 10, 10)
    score[0, 4:6, 4:6, 4:6] = 2.0
    row, lesion = run(few, tmp_path, volume(score))
    assert lesion["best_dice"] == pytest.approx(1.0)
    assert "dice" not in lesion and np.isnan(row["dice"]) and "within" not in row
    assert json.loads((tmp_path / "frontier.json").read_text())["people"][0]["score"] == pytest.approx(1.0, rel=1e-4)


def test_what_the_shipped_threshold_finds_and_whom_it_leaves_alone(entries, tmp_path):
    """A row a disease; the threshold is that of the method, whatever limits halves of the people set."""
    score = torch.zeros(1, 10, 10, 10)
    score[0, 4:6, 4:6, 4:6] = 2.0
    score[0, 8, 8, :4] = 1.1
    entries[-1]["group"] = "stroke"
    handler = Frontier(entries, PostProcessing(0.0, 0.0, 0.1), tmp_path, thresholds={"score": 1.05, "other": None})
    for number, entry in enumerate(entries[:-1]):
        same = healthy_score(1.0 + number / 100)
        handler.note(case(entry, {"score": same, "other": same}))
    handler.note(case(entries[-1], {"score": volume(score), "other": volume(score)}))
    handler.write(Engine(lambda *_: None))
    kinds = pd.read_csv(tmp_path / "kinds.csv").set_index("row")
    assert kinds.loc["score", ["group", "modality", "scans"]].tolist() == ["stroke", "t1", 1]
    assert kinds.loc["score", "dice_shipped"] == pytest.approx(2 * 8 / (8 + 12))
    assert kinds.loc["score", "dice"] == pytest.approx(1.0) and np.isnan(kinds.loc["other", "dice_shipped"])
    table = pd.read_csv(tmp_path / "frontier.csv").set_index("row")
    # Of 40 people at 1.00, 1.01 and so on, six are within; the old are the first 20.
    assert table.loc["score", "within_shipped"] == pytest.approx(6 / 40, abs=0.03)
    assert table.loc["score", "within_shipped old"] == pytest.approx(6 / 20, abs=0.06)
    assert table.loc["score", "within_shipped young"] == 0.0


def test_a_patient_whose_mask_is_empty_is_no_healthy_person(entries, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((10, 10, 10), dtype=np.uint8), AFFINE), tmp_path / "empty.nii.gz")
    patient = {"subject": "patient", "lesion": str(tmp_path / "empty.nii.gz")}
    handler = Frontier([*entries[:-1], patient], PostProcessing(0.0, 0.0, 0.1), tmp_path)
    with pytest.raises(InputError, match="empty.nii.gz marks no lesion: every voxel is 0"):
        handler.note(case(patient, {"score": healthy_score(1.0)}))
    assert not handler.healthy and not handler.diseased


def test_a_scan_of_which_nothing_is_known_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing is known of scan"):
        Frontier([{"subject": "scan"}], PostProcessing(0.0, 0.0, 0.1), tmp_path)
