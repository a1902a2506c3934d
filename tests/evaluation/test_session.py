"""Several scans of one person: one score. Brains are real, scores and motions are made by hand, so that the answer is known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation
from scripts.errors import InputError
from scripts.evaluation import Frontier, Look, PostProcessing, SessionScore
from scripts.methods import ConformalLimit
from scripts.volumes import read_volume

PLAIN = {"weights": {"flair": 2.0}, "power": 0.5, "voxel_size": 2.0, "likeness": 0.5}


def brain_of(shared_data, person: int) -> MetaTensor:
    file = sorted((shared_data / "healthy_t1w_2mm").glob("*_T1w.nii.gz"))[person]
    return read_volume(file)


@pytest.fixture(scope="module")
def brain(shared_data):
    return brain_of(shared_data, 0)


def motion(degrees=(6.0, -4.0, 8.0), shift=(5.0, -8.0, 6.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def moved(volume: MetaTensor, by: np.ndarray) -> MetaTensor:
    """The same voxels, whose points lie elsewhere."""
    return MetaTensor(volume.as_tensor(), affine=torch.as_tensor(by) @ volume.affine.double())


def look(brain, modality, level, by=None, name=None) -> Look:
    """A scan of which every voxel of the brain has one score."""
    by = np.eye(4) if by is None else by
    score = MetaTensor((brain.as_tensor() > 0) * float(level), affine=brain.affine)
    return Look(name or modality, modality, moved(score, by), moved(brain, by))


def inner(together, score) -> torch.Tensor:
    """The score deep in the brain of the best scan, where no border is."""
    inside = torch.nn.functional.avg_pool3d((together.drawn[0].as_tensor() > 0).float()[None], 9, 1, 4)[0] > 0.999
    return score.as_tensor()[inside]


def test_a_moved_scan_is_found_and_counts_by_its_weight(brain):
    session, by = SessionScore(**PLAIN), motion()
    together = session.register([look(brain, "flair", 4.0, by), look(brain, "t1", 1.0)])
    assert [one.modality for one in together.looks] == ["t1", "flair"]  # the T1w is the person
    points = np.array([[60, -60, 0, 0], [0, 0, 60, -60], [40, -40, 20, -20], [1, 1, 1, 1]])
    assert np.abs((together.motions[1] - by) @ points).max() < 1.0
    # ((1 sqrt(1) + 2 sqrt(4)) / 3)^2
    assert torch.allclose(inner(together, session.combine(together)), torch.tensor((5 / 3) ** 2), atol=0.02)


def test_no_voxel_has_more_than_its_largest_score_nor_less_than_its_least(brain):
    session = SessionScore(**PLAIN)
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(brain.shape, generator=generator) * 3 for _ in range(3)]
    looks = [
        Look(m, m, MetaTensor(values * (brain.as_tensor() > 0), affine=brain.affine), brain)
        for m, values in zip(("t1", "t2", "flair"), scores)
    ]
    together = session.register(looks)
    combined = session.combine(together).as_tensor()
    seen = torch.stack([score.as_tensor() for score in together.scores])
    # The registration of equal volumes is not exactly the identity: a voxel of noise is compared with what it became.
    assert (combined <= seen.max(dim=0).values + 1e-4).all()
    inside = together.drawn[0].as_tensor() > 0
    everywhere = torch.stack([drawn.as_tensor() > 0 for drawn in together.drawn]).all(dim=0)
    assert (combined >= seen.min(dim=0).values - 1e-4)[inside & everywhere].all()


def test_a_single_scan_keeps_its_score(brain):
    session = SessionScore(**PLAIN)
    together = session.register([look(brain, "t2", 1.7)])
    assert torch.allclose(inner(together, session.combine(together, {"settings": {}, "limits": {}})), torch.tensor(1.7))


def test_somebody_else_is_left_out_and_spoils_nothing(brain, shared_data):
    session = SessionScore(**PLAIN)
    other = look(brain_of(shared_data, 5), "flair", 9.0, name="other_FLAIR")
    together = session.register([look(brain, "t1", 1.0, name="own_T1w"), other, look(brain, "t2", 1.0)])
    assert set(together.left_out) == {"other_FLAIR"} and "own_T1w" in together.left_out["other_FLAIR"]
    assert torch.allclose(inner(together, session.combine(together)), torch.tensor(1.0), atol=0.01)


def test_what_a_cut_scan_does_not_reach_is_judged_by_the_others(brain):
    session = SessionScore(**PLAIN)
    cut = look(brain, "flair", 0.0)
    cut.drawn = MetaTensor(cut.drawn.as_tensor().clone(), affine=cut.drawn.affine)
    middle = brain.shape[3] // 2
    cut.drawn[..., middle:] = 0
    together = session.register([look(brain, "t1", 2.0), cut])
    assert len(together.looks) == 2
    score = session.combine(together).as_tensor()
    inside = torch.nn.functional.avg_pool3d((together.drawn[0].as_tensor() > 0).float()[None], 9, 1, 4)[0] > 0.999
    above, below = inside.clone(), inside.clone()
    above[..., : middle + 3], below[..., middle - 3 :] = False, False
    assert torch.allclose(score[above], torch.tensor(2.0), atol=0.01)
    assert torch.allclose(score[below], torch.tensor(2.0 / 9.0), atol=0.01)  # (sqrt(2) / 3)^2


def test_without_a_t1w_the_healthy_t1w_is_the_mean_of_what_the_others_draw(brain):
    session = SessionScore(**PLAIN)
    darker = Look(
        "flair", "flair", look(brain, "flair", 1.0).score, MetaTensor(brain.as_tensor() / 2, affine=brain.affine)
    )
    together = session.register([look(brain, "t2", 1.0), darker])
    ratio = inner(together, together.healthy) / inner(together, together.drawn[0])
    assert float(ratio.median()) == pytest.approx(0.75, abs=0.01)
    with_t1 = session.register([look(brain, "t1", 1.0), darker])
    assert torch.equal(with_t1.healthy.as_tensor(), with_t1.drawn[0].as_tensor())


def test_a_limit_of_a_session_belongs_to_its_scans_and_settings(brain):
    session = SessionScore(**PLAIN)
    together = session.register([look(brain, "t1", 1.0), look(brain, "t2", 1.0)])
    known = {"settings": session.settings, "limits": {"t1+t2": 0.5}}
    assert torch.allclose(inner(together, session.combine(together, known)), torch.tensor(2.0), atol=0.02)
    known["limits"] = {"flair+t1": 0.5}
    assert torch.allclose(inner(together, session.combine(together, known)), torch.tensor(1.0), atol=0.01)
    with pytest.raises(InputError, match="session_weights"):
        SessionScore(**{**PLAIN, "power": 1.0}).combine(together, known)
    with pytest.raises(InputError, match="above 0"):
        SessionScore(**{**PLAIN, "power": 0})


def scans_of(brain, entry, level):
    whole = MetaTensor(torch.ones_like(brain.as_tensor()), affine=brain.affine)
    score = look(brain, entry["modality"], level).score
    return {**entry, "brain": whole, "original": whole, "score": score, "pred_healthy": brain}


def test_healthy_people_set_the_limit_of_every_set_of_scans(brain, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    levels = {"t1": 0.2, "flair": 0.4}
    entries = [
        {"subject": f"p{n}_{m}", "person": f"p{n}", "session": f"p{n}", "modality": m, "diseased": False}
        for n in range(4)
        for m in levels
    ]
    session = SessionScore(**PLAIN)
    handler = ConformalLimit(tmp_path, tmp_path / "model.pt", {}, 0.0, 0.1, entries, share=0.5, session=session)
    for n, entry in enumerate(entries):
        # In each person one of the scans is at its limit, the other one at a quarter of it.
        high = (n // 2 + n) % 2 == 0
        handler.note(scans_of(brain, entry, levels[entry["modality"]] * (1.0 if high else 0.25)))
    handler.write(Engine(lambda *_: None))
    made = json.loads((tmp_path / "calibration.json").read_text())
    assert {name: known["limit"] for name, known in made["modalities"].items()} == pytest.approx(levels, rel=1e-4)
    assert made["sessions"]["settings"] == session.settings
    # People of the one kind have ((1 + 2 x 0.5) / 3)^2, of the other ((0.5 + 2) / 3)^2: three of five promises need the larger.
    assert made["sessions"]["limits"] == {"flair+t1": pytest.approx((2.5 / 3) ** 2, abs=0.01)}


def test_the_frontier_judges_a_session_as_a_modality_of_its_own(brain, tmp_path):
    from scripts.saving import save_volume

    lesion = torch.zeros(brain.shape)
    middle = [size // 2 for size in brain.shape[1:]]
    box = (slice(None), *(slice(m - 6, m + 6) for m in middle))
    lesion[box] = 1
    truth = MetaTensor(lesion, affine=brain.affine)
    save_volume(truth, tmp_path / "lesion.nii.gz", np.uint8)
    entries = [
        {"subject": f"p_{m}", "session": "p", "person": "p", "modality": m, "lesion": str(tmp_path / "lesion.nii.gz")}
        for m in ("t1", "t2")
    ]
    handler = Frontier(
        entries, PostProcessing(0.0, 0.0, 0.1), tmp_path, thresholds={"una": 1.0}, session=SessionScore(**PLAIN)
    )
    # Each scan marks the lesion and half as much beside it, each at another place; where both agree is the lesion.
    for number, entry in enumerate(entries):
        score = lesion.clone() * 2.0
        aside = (
            slice(None),
            *(slice(m - 6, m + 6) for m in middle[:2]),
            slice(middle[2] + 8 + 8 * number, middle[2] + 14 + 8 * number),
        )
        score[aside] = 2.0
        whole = MetaTensor(torch.ones_like(brain.as_tensor()), affine=brain.affine)
        scores = {"una": MetaTensor(score, affine=brain.affine)}
        handler.note({**entry, "brain": whole, "original": whole, "scores": scores, "drawn": {"una": brain}})
    handler.write(Engine(lambda *_: None))
    rows = pd.read_csv(tmp_path / "lesions.csv").set_index("modality")
    assert list(rows.index) == ["t1", "t1+t2", "t2"]
    assert rows.loc["t1", "dice_shipped"] == pytest.approx(0.8, abs=0.01)
    assert rows.loc["t1+t2", "dice_shipped"] > 0.95
