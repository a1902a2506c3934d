"""People are counted, not scans; and one bad truth stops no other."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scripts.data import Survey
from scripts.errors import InputError
from scripts.evaluation import CaseHandler, Conformal, Frontier, PostProcessing, Record
from scripts.evaluation.truth import known_hash
from scripts.methods import ConformalLimit

AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])  # a voxel is 1 ml


def score(level: float) -> MetaTensor:
    """Six voxels at a level, all else below: 5 ml are left from the level on."""
    values = torch.zeros(1, 10, 10, 10)
    values[0, 0, 0, :6] = level
    return MetaTensor(values, affine=torch.from_numpy(AFFINE))


def records(people: int, scans: int) -> list[Record]:
    return [
        Record(f"p{p}_{s}", "t1", False, np.zeros((2, 1)), {5.0: 1.0 + p / 100 + s / 10, 1.0: 1.0}, f"p{p}")
        for p in range(people)
        for s in range(scans)
    ]


def test_a_promise_rests_on_people():
    with pytest.raises(InputError, match="1 healthy people cannot promise"):
        Conformal(5.0, 0.95, 1.0).choose(records(1, 19))
    # Of 19 people with two scans each the worse scan counts, and the largest of them is the limit.
    assert Conformal(5.0, 0.95, 1.0).choose(records(19, 2)) == pytest.approx(1.18 + 0.1)


def test_a_calibration_counts_people(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")

    def limit(folder, people):
        made = ConformalLimit(tmp_path / folder, tmp_path / "model.pt", {}, smoothing=0.0, min_volume_ml=0.1)
        for number in range(38):
            person = f"p{number % people}"
            made.note({"subject": f"s{number}", "person": person, "modality": "t1", "score": score(1.0 + number / 100)})
        made.write(Engine(lambda *_: None))
        return json.loads((tmp_path / folder / "calibration.json").read_text())["modalities"]["t1"]

    with pytest.raises(InputError, match="2 healthy people cannot promise"):
        limit("few", 2)
    known = limit("many", 19)
    assert known["people"] == 19 and len(known["limits"]) == 19
    assert known["limit"] == pytest.approx(1.37, abs=0.01)  # the last scan of the last person


def test_a_small_group_costs_no_other_its_limit_and_a_patient_is_refused(tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"weights")
    given = {"checkpoint": tmp_path / "model.pt", "settings": {}, "smoothing": 0.0, "min_volume_ml": 0.1}
    made = ConformalLimit(tmp_path, **given)
    for number in range(23):
        modality = "t1" if number < 19 else "t2"
        made.note({"subject": f"s{number}", "modality": modality, "score": score(1.0 + number / 100)})
    made.write(Engine(lambda *_: None))
    assert set(json.loads((tmp_path / "calibration.json").read_text())["modalities"]) == {"t1"}
    assert "t2 gets no limit: 4 healthy people cannot promise" in capsys.readouterr().out
    for known in ({"lesion": "mask.nii.gz"}, {"anomaly": "p.nii.gz"}, {"diseased": True}):
        with pytest.raises(InputError, match="only healthy people set a limit, and ill have a lesion"):
            ConformalLimit(
                tmp_path, **given, scans=[{"subject": "well", "diseased": False}, {"subject": "ill", **known}]
            )


def test_a_frontier_counts_people(tmp_path):
    entries = [{"subject": f"s{n}", "person": f"p{n // 2}", "diseased": False} for n in range(8)]
    handler = Frontier(entries, PostProcessing(0.0, 0.0, 0.1), tmp_path)
    whole = MetaTensor(torch.ones(1, 10, 10, 10), affine=torch.from_numpy(AFFINE))
    for number, entry in enumerate(entries):
        case = {"subject": entry["subject"], "modality": "t1", "brain": whole, "original": whole}
        handler.note({**case, "scores": {"score": score(1.0 + number / 10)}})
    limits = [person["limits"]["score"] for person in handler.healthy]
    np.testing.assert_allclose(limits, [1.1, 1.3, 1.5, 1.7], atol=0.01)


class Told(CaseHandler):
    needed = "image"

    def __init__(self):
        self.seen, self.written = [], False

    def note(self, case):
        if case["image"] == "b.nii":
            raise InputError("b_mask.nii is not on the grid of its scan")
        self.seen.append(case["image"])

    def write(self, engine):
        self.written = True


def test_a_truth_that_cannot_be_used_is_named_and_the_others_are_judged(capsys):
    entries = [{"image": name} for name in ("a.nii", "b.nii", "c.nii")]
    survey, handler = Survey(entries, entries), Told()
    engine = Engine(lambda engine, batch: {})
    handler.attach(engine)
    engine.run(survey, epoch_length=3)
    assert handler.seen == ["a.nii", "c.nii"] and handler.written
    with pytest.raises(InputError, match=r"1 of 3 scans could not be used \(the others are done\): b.nii: b_mask.nii"):
        survey.finish()
    assert "left out: b.nii" in capsys.readouterr().out


def test_results_without_a_lesion_have_tables(tmp_path):
    from scripts.evaluation.comparison import LESION_MEASURES, Comparison

    row = {"method": "m", "subject": "s", "modality": "t1", "diseased": False, "true_ml": 0.0, "scan_score": 0.1}
    row |= {"seconds": 1.0, "found_ml_otsu": 2.0, "false_ml_otsu": 2.0, "threshold_otsu": 0.1}
    judged = {
        "about": {"sees": [], "priors": []},
        "rows": [row, {**row, "subject": "r"}],
        "pooled": {},
        "slices": {},
        "thresholds": {"otsu": {}},
        "scans": {"test": 2},
    }
    house = SimpleNamespace(output_dir=tmp_path, primary="otsu", failures={})
    house._summary = lambda *given: Comparison._summary(house, *given)
    Comparison._write(house, {"m": judged, "n": {**judged, "rows": [{**r, "method": "n"} for r in judged["rows"]]}})
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["healthy_ml"] for row in content["summary"]] == [2.0, 2.0]
    assert all(row[name] is None for row in content["summary"] for name in LESION_MEASURES if name in row)


def test_another_mask_under_the_same_path_is_another_truth(tmp_path):
    mask = tmp_path / "mask.nii.gz"
    entry = {"subject": "p", "image": "p.nii.gz", "content": "1", "lesion": str(mask)}
    hashes = []
    for values in (b"one", b"other"):
        mask.write_bytes(values)
        hashes += [known_hash(entry), known_hash({**entry, "label_value": 2})]
    mask.write_bytes(b"one")
    assert len(set(hashes)) == 4 and known_hash(entry) == hashes[0]
    assert known_hash({**entry, "image": "elsewhere/p.nii.gz"}) == hashes[0]
