"""The refiner of the healthy T1w: where it acts, and where it must not."""

import pytest
import torch
from conftest import ball
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.neighbourhood import SURROUNDINGS, surroundings
from scripts.residual import RefineT1wd, T1wRefiner, doubt
from scripts.saving import file_hash

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
BRAIN = ball(40, 16.0)[None]


def volume(values: torch.Tensor) -> MetaTensor:
    return MetaTensor(values.float(), affine=AFFINE)


@pytest.fixture
def case():
    random = torch.Generator().manual_seed(0)
    scan = (0.4 + 0.02 * torch.randn(BRAIN.shape, generator=random)) * BRAIN
    lesion = torch.zeros_like(BRAIN)
    lesion[0, 22:28, 18:24, 18:24] = True
    return {
        "scan": volume(torch.where(lesion, 0.9, scan)),
        "pred_intact": volume(scan),
        "pred_healthy": volume(0.6 * BRAIN),
        "brain": volume(BRAIN),
        "modality": "t2",
    }, lesion


@pytest.fixture
def brighter(tmp_path):
    """A refiner that adds a tenth everywhere, and the weights that it belongs to."""
    weights = tmp_path / "model.pt"
    torch.save({}, weights)
    refiner = T1wRefiner(weights=file_hash(weights))
    with torch.no_grad():
        refiner.network[-1].weight.zero_()
        refiner.network[-1].bias.fill_(0.1)
    refiner.save(tmp_path / "refiner.pt")
    return tmp_path / "refiner.pt", weights


def test_it_acts_in_the_healthy_brain_and_leaves_a_lesion_as_it_was_drawn(brighter, case):
    data, lesion = case
    found = RefineT1wd("pred_healthy", *brighter)(data)["pred_healthy"].as_tensor()
    assert (found[lesion] - 0.6).abs().max() < 1e-3
    near = torch.nn.functional.max_pool3d(lesion.float(), 9, 1, 4) > 0
    healthy = BRAIN & ~near
    # Noise of the scan counts as a little doubt.
    assert float(found[healthy].mean()) > 0.66 and float(found[healthy].max()) <= 0.7 + 1e-3
    assert not found[~BRAIN].any()


def test_what_a_score_nearly_marks_is_left_alone_without_an_intact_scan(brighter, case):
    data, lesion = case
    del data["pred_intact"]
    score = volume(0.5 * lesion.float())
    found = RefineT1wd("pred_healthy", *brighter)({**data, "score": score})["pred_healthy"].as_tensor()
    assert (found[lesion] - 0.6).abs().max() < 1e-6
    untouched = BRAIN & (found < 0.65)
    assert lesion.sum() < untouched.sum() <= 8**3  # a voxel around


def test_other_modalities_and_other_weights_stay(brighter, case, tmp_path):
    data, _ = case
    refine = RefineT1wd("pred_healthy", *brighter)
    assert torch.equal(refine({**data, "modality": "t1"})["pred_healthy"], data["pred_healthy"])
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pt")
    other = RefineT1wd("pred_healthy", brighter[0], tmp_path / "other.pt")
    assert torch.equal(other(data)["pred_healthy"], data["pred_healthy"])
    with pytest.raises(InputError, match="other.pt is no refiner"):
        RefineT1wd("pred_healthy", tmp_path / "other.pt", brighter[1])


def test_doubt_without_signs_is_none(case):
    data, _ = case
    assert not doubt(data["scan"], data["brain"]).any()
    assert float(doubt(data["scan"], data["brain"], None, data["scan"]).max()) == 0.0


def test_what_is_told_of_a_voxel():
    image = torch.rand(BRAIN.shape, generator=torch.Generator().manual_seed(0))
    rows = surroundings(image, BRAIN, 2.0)
    assert rows.shape == (int(BRAIN.sum()), SURROUNDINGS)
    torch.testing.assert_close(rows[:, 0], image[BRAIN])
    assert (rows[:, 4] >= rows[:, 0]).all() and (rows[:, 5] <= rows[:, 0]).all()
    # Left and right are told the same: the mirror image of a brain has the rows of the brain.
    mirrored = surroundings(image.flip(1), BRAIN.flip(1), 2.0)
    order = BRAIN.float().clone()
    order[BRAIN] = torch.arange(float(BRAIN.sum()))
    back = order.flip(1)[BRAIN.flip(1)].long()
    torch.testing.assert_close(mirrored, rows[back], atol=1e-4, rtol=1e-4)
