"""A bank of contrasts, from pairs whose rule is known."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from scripts.appearance import ContrastBank, RandBankContrast, RandBankContrastd, write_contrast_bank
from scripts.config import from_config
from scripts.errors import InputError

LABELS = from_config("generator.yaml", "labels", {})
SIZE = 32


def person(seed: int) -> dict:
    """A ball of smooth tissue with a dark middle, its T2w, which is no curve of the T1w, and a lesion in the T2w."""
    random = np.random.RandomState(seed)
    index = np.indices((SIZE,) * 3)
    away = np.sqrt(((index - (SIZE - 1) / 2) ** 2).sum(axis=0))
    brain = away < 14
    t1 = 0.6 + gaussian_filter(random.normal(size=brain.shape), 1.5) * 1.2
    t1 = np.clip(np.where(away < 4, 0.22, t1), 0.1, 0.9) * brain
    label = np.where(brain, np.where(t1 < 0.4, 24, np.where(t1 < 0.62, 3, 2)), 0)
    depth = np.maximum(14 - away, 0.0)
    t2 = np.where(brain, np.where(t1 < 0.4, 0.9, 0.8 - 0.6 * t1 + 0.02 * np.minimum(depth, 6.0)), 0.0)
    lesion = (np.sqrt(((index - np.reshape([20, 16, 16], (3, 1, 1, 1))) ** 2).sum(axis=0)) < 3) & brain
    volumes = {"t1": t1, "label": label, "truth": t2, "t2": np.where(lesion, 1.0, t2), "lesion": lesion}
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    made = {key: MetaTensor(torch.from_numpy(v.astype(np.float32))[None], affine=affine) for key, v in volumes.items()}
    return {"subject": f"p{seed}", **made}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "contrast_bank.pt"
    write_contrast_bank(path, [person(0), person(1)], LABELS, None, 2.0, iterations=600)
    return path


def drawn(bank, who, seed=0, **settings):
    transform = RandBankContrast(bank, LABELS, None, **{"shift": 0.0, "texture": 0.0, **settings}).set_random_state(
        seed
    )
    return transform(who["t1"], who["label"], (who["label"] > 0).float())


def test_another_person_gets_the_contrast_without_the_lesions_of_the_pairs(bank):
    stranger = person(7)
    inside = stranger["label"] > 0
    off = (drawn(bank, stranger) - stranger["truth"]).abs()[inside]
    assert off.mean() < 0.025
    # No curve of the T1w does that: the depth below the surface counts, too.
    t1, t2 = (np.asarray(stranger[key][inside]) for key in ("t1", "truth"))
    curve = np.polynomial.Polynomial.fit(t1, t2, 5)(t1)
    assert off.mean() < 0.7 * np.abs(curve - t2).mean()


def test_what_is_drawn_at_random(bank):
    who = person(3)
    plain = drawn(bank, who)
    torch.testing.assert_close(drawn(bank, who, shift=0.15, texture=0.5), drawn(bank, who, shift=0.15, texture=0.5))
    shifted = drawn(bank, who, seed=2, shift=0.3)
    inside = (who["label"] > 0) & (plain > 0.1) & (shifted > 0.01)
    slope = np.polyfit(who["t1"][inside].numpy() - 0.6, (shifted - drawn(bank, who, seed=2))[inside].numpy(), 1)
    assert 0.0 < abs(slope[0]) <= 0.3 and abs(slope[1]) < 0.01
    assert (drawn(bank, who, texture=2.0) - plain).std() > 0.002
    assert drawn(bank, who, prob=0.0) is who["t1"]


def test_dictionary_form_replaces_the_scan_and_nothing_else(bank):
    who = person(4)
    data = {**who, "scan": who["t1"], "brain": (who["label"] > 0).float()}
    transform = RandBankContrastd("t1", bank=bank, labels=LABELS, prob=0.5).set_random_state(0)
    found = [transform(data) for _ in range(20)]
    changed = [not torch.equal(one["scan"], who["t1"]) for one in found]
    assert 4 < sum(changed) < 16
    assert all(torch.equal(one["t1"], who["t1"]) for one in found)
    assert all((one["scan"].as_tensor()[who["label"].as_tensor() == 0] == 0).all() for one in found)


def test_what_is_no_bank_is_refused(tmp_path):
    with pytest.raises(InputError, match="no bank of contrasts at .*run banking"):
        ContrastBank.load(tmp_path / "none.pt")
    torch.save({"x": 1}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="is no bank of contrasts"):
        ContrastBank.load(tmp_path / "other.pt")
    alone = {key: value for key, value in person(0).items() if key != "t2"}
    with pytest.raises(InputError, match="no subject .* has a t1 and one of t2, flair"):
        write_contrast_bank(tmp_path / "bank.pt", [alone], LABELS, None, 2.0)
