"""The gate of healthy brains and the limit that follows from healthy people, where the answer is known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.evaluation import (
    HealthyGate,
    LesionMask,
    SmoothScore,
    findings,
    gate_summary,
    lowest_limit,
    split_conformal,
)
from scripts.methods import ConformalLimit
from scripts.residual import AnomalyScored, load_calibration


def test_a_finding_is_described_by_volume_place_and_tissue(omega):
    lesion = torch.zeros(omega.shape)
    lesion[:, 28:32, 18:22, 18:22] = 1.0  # 64 voxels to the right (RAS) of the middle
    lesion[:, 10:12, 30:32, 8:10] = 1.0  # 8 voxels on the left, anterior, low, at the surface
    t1 = torch.where(lesion > 0, 0.76, 0.3)
    t1[:, 10:12] = 0.55
    as_volume = lambda v: MetaTensor(v, affine=omega.affine)  # noqa: E731
    rows = findings(as_volume(lesion), as_volume(2.0 * lesion), as_volume(t1), omega)
    assert [row["ml"] for row in rows] == [pytest.approx(0.064), pytest.approx(0.008)]
    first, second = rows
    assert first["side"] == "right" and first["third"] == "middle middle" and first["tissue"] == "white matter"
    np.testing.assert_allclose(first["centre_mm"], [10.0, 0.0, 0.0], atol=0.1)
    assert second["side"] == "left" and second["third"] == "lower anterior" and second["tissue"] == "gray matter"
    assert second["at_surface"] and second["mean_score"] == 2.0
    assert findings(as_volume(torch.zeros(omega.shape)), omega, omega, omega) == []
    # A mirror transform that lies elsewhere decides the side.
    elsewhere = np.diag([-1.0, 1.0, 1.0, 1.0])
    elsewhere[0, 3] = 2 * 14.0
    assert findings(as_volume(lesion), omega, omega, omega, elsewhere)[0]["side"] == "left"


def test_the_gate_passes_and_fails_by_median_and_tail():
    def passed(t1, t2):
        rows = [{"modality": "t1", "found_ml": ml} for ml in t1] + [{"modality": "t2", "found_ml": ml} for ml in t2]
        summary = gate_summary(pd.DataFrame(rows), median_ml=1.0, high_ml=5.0)
        return {name: said["passed"] for name, said in summary.items()}

    assert passed([0, 0, 1, 4.9], [0.5]) == {"all": True, "t1": True, "t2": True}
    assert passed([0, 0, 0, 0, 5.1], [0.0]) == {"all": False, "t1": False, "t2": True}
    assert passed([0, 0, 0], [2, 2, 2]) == {"all": True, "t1": True, "t2": False}


def test_the_limit_is_where_the_found_volume_meets_the_promise():
    affine = torch.diag(torch.tensor([10.0, 10.0, 10.0, 1.0], dtype=torch.float64))  # a voxel is 1 ml
    score = torch.zeros(1, 12, 12, 12)
    score[0, 2, 2, :10] = torch.arange(1, 11) / 10.0
    limit = lowest_limit(MetaTensor(score, affine=affine), largest_ml=5.5, min_volume_ml=0.0)
    assert limit == pytest.approx(0.5, abs=1e-3)  # 0.6 to 1.0 are five voxels
    assert lowest_limit(MetaTensor(score, affine=affine), 5.0, min_volume_ml=20.0) < 1e-3


def test_split_conformal_keeps_its_promise():
    random = np.random.RandomState(0)
    kept = []
    for _ in range(2000):
        limits = random.lognormal(size=20)
        kept.append(limits[0] <= split_conformal(limits[1:], 0.9))
    assert np.mean(kept) >= 0.88
    assert split_conformal([3.0, 1.0, 2.0, *[0.0] * 16], 0.95) == 3.0
    with pytest.raises(InputError, match="18 healthy people.*19 are needed"):
        split_conformal([1.0] * 18, 0.95)


def case(omega, scale: float, seed: int, lesion=None):
    brain = MetaTensor((omega.as_tensor() > 0).float(), affine=omega.affine)
    noise = scale * torch.randn(omega.shape, generator=torch.Generator().manual_seed(seed))
    healthy = MetaTensor(0.75 * brain.as_tensor(), affine=omega.affine)
    scan = MetaTensor(
        (healthy.as_tensor() + noise + (0 if lesion is None else lesion)) * brain.as_tensor(), affine=omega.affine
    )
    return {
        "scan": scan,
        "brain": brain,
        "pred_healthy": healthy,
        "expected": healthy,
        "modality": "t1",
        "subject": f"s{seed}",
    }


def run_through(handler, cases):
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.state.batch = engine.state.output = None

    def step(engine, batch):
        engine.state.output = {}
        return {}

    engine._process_function = step
    engine.run(cases, max_epochs=1)


def test_calibrating_writes_what_the_score_needs(omega, tmp_path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    promise = {"largest_ml": 0.1, "share": 0.8, "usual_ml": 0.1}
    handler = ConformalLimit(tmp_path, weights, {}, 1.0, 0.0, **promise)

    def scored(seed, blob=None, calibration=None):
        person = case(omega, 0.02, seed) if blob is None else case(omega, 0.02, seed, blob)
        return AnomalyScored("expected", calibration=calibration)(person)

    run_through(handler, [scored(seed) for seed in range(6)])
    content = json.loads((tmp_path / "calibration.json").read_text())
    known = content["modalities"]["t1"]
    assert known["people"] == 6 and known["limit"] == pytest.approx(known["limits"][-1], abs=1e-3)
    calibration = load_calibration(tmp_path / "calibration.json", weights)
    fresh = scored(77, calibration=calibration)["score"]
    assert float(LesionMask(1.0, 0.0)(SmoothScore(1.0)(fresh)).sum()) / 1000 <= 0.15  # of a person who comes next
    blob = torch.zeros(omega.shape)
    blob[:, 15:22, 15:22, 15:22] = 0.3
    found = scored(78, blob, calibration)["score"]
    assert float(LesionMask(1.0, 0.0)(SmoothScore(1.0)(found)).sum()) > 250


def test_the_gate_writes_its_tables_and_says_what_was_missed(omega, tmp_path):
    cases = []
    for seed, size in enumerate((0, 0, 9)):
        lesion = torch.zeros(omega.shape)
        lesion[:, 12 : 12 + size, 12 : 12 + size, 12 : 12 + size] = 1.0
        extra = {"lesion": MetaTensor(lesion, affine=omega.affine), "score": MetaTensor(lesion, affine=omega.affine)}
        cases.append(
            {
                **case(omega, 0.02, seed),
                **extra,
                "original": MetaTensor(500.0 * omega.as_tensor(), affine=omega.affine),
                "pred_intact": MetaTensor(0.7 * (omega.as_tensor() > 0), affine=omega.affine),
            }
        )
    with pytest.raises(InputError, match="not left alone"):
        run_through(HealthyGate(tmp_path, median_ml=0.1, high_ml=0.5), cases)
    table = pd.read_csv(tmp_path / "gate.csv").set_index("subject")
    assert table["found_ml"].tolist() == pytest.approx([0, 0, 0.729]) and table["findings"].tolist() == [0, 0, 1]
    assert len(pd.read_csv(tmp_path / "findings.csv")) == 1
    assert (tmp_path / "s2.png").is_file() and not (tmp_path / "s0.png").exists()
    run_through(HealthyGate(tmp_path / "lenient", median_ml=0.1, high_ml=1.0), cases)
    assert json.loads((tmp_path / "lenient/gate.json").read_text())["all"]["passed"]
