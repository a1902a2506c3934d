"""SimpleSliceNet's losses by hand, and the vectors that it learns from."""

import math

import pytest
import torch
from scripts.learning import FlowLoss, RandFeatureVectorsd, feature_codes

HEALTHY, ABNORMAL = [1.0, 3.0, -2.0], [0.5, 3.5, 1.0]


def maximum_likelihood() -> float:
    return sum(math.log(1 + math.exp(-value)) for value in HEALTHY) / 3


@pytest.mark.parametrize(
    "push, expected",
    [
        ("none", 0.0),
        # Each meets the one before it: |1+2|-.5+1, |3-1|-.5+1, |-2-3|-3+1.
        ("triplet", (3.5 + 2.5 + 3.0) / 3),
        ("triplet_batch", math.sqrt(9 + 4 + 25) - math.sqrt(0.25 + 0.25 + 9) + 1.0),
        ("ranking", (0.5 + 1.5 + 4.0) / 3),
    ],
)
def test_push_by_hand(push, expected):
    loss = FlowLoss(push)(torch.tensor([HEALTHY, ABNORMAL]))
    assert float(loss) == pytest.approx(maximum_likelihood() + expected, rel=1e-4)


def test_boundary_by_hand_and_without_violators():
    healthy = torch.arange(21.0)  # in tenths, as the loss takes them; the boundary is their 5 % quantile, 0.1
    abnormal = torch.full((21,), -5.0)
    abnormal[:2] = torch.tensor([0.5, 3.0])
    loss = FlowLoss("boundary")(torch.stack([healthy, abnormal]))
    likely = float(torch.nn.functional.softplus(-healthy).mean())
    # One healthy vector lies below by 0.1; two abnormal ones above 0.1 - 0.1 by 0.05 and 0.3.
    assert float(loss) == pytest.approx(likely + 0.1 + (0.05 + 0.3) / 2, abs=1e-5)
    same = torch.full((21,), 2.0, requires_grad=True)
    quiet = FlowLoss("boundary")(torch.stack([same, torch.full((21,), -50.0)]))
    quiet.backward()
    assert float(quiet.detach()) == pytest.approx(math.log(1 + math.exp(-2.0))) and torch.isfinite(same.grad).all()


def test_a_push_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"triplet, .*, none, not pull"):
        FlowLoss("pull")


@pytest.fixture
def looked_at():
    """Features that tell their own place; the brain is in the middle, with a lesion in a corner of it."""
    x, y, z = torch.meshgrid(torch.arange(6), torch.arange(7), torch.arange(4), indexing="ij")
    inside, abnormal = torch.zeros(1, 6, 7, 4), torch.zeros(1, 6, 7, 4)
    inside[:, 1:5, 1:6] = 0.1  # a place at the surface counts: it is scored, too
    abnormal[:, 1:3, 1:3, 2] = 0.8
    features = torch.stack([x, y, z]).half()
    return {"features": features, "inside": inside, "abnormal": abnormal, "modality": "t2"}


def test_vectors_come_from_the_brain_and_their_codes_with_them(looked_at):
    pick = RandFeatureVectorsd("features", 200, 0.3, code_size=8, modalities=["t1", "t2"]).set_random_state(0)
    found = pick(looked_at)
    codes = feature_codes((6, 7, 4), 8, False, ["t1", "t2"], "t2")
    assert codes[0, 0, 0, -2:].tolist() == [0.0, 1.0]
    for vectors, code, lesion in (("vectors", "codes", False), ("abnormal_vectors", "abnormal_codes", True)):
        places = found[vectors].long()
        assert (looked_at["inside"][0, *places.T] > 0).all()
        assert ((looked_at["abnormal"][0, *places.T] > 0) == lesion).all()
        torch.testing.assert_close(found[code], codes[*places.T])
    assert len(found["vectors"].unique(dim=0)) > 40
    again = pick.set_random_state(0)(looked_at)
    assert all(torch.equal(again[key], value) for key, value in found.items())


def test_without_a_lesion_abnormal_is_noise(looked_at):
    pick = RandFeatureVectorsd("features", 4000, 0.3, code_size=8).set_random_state(0)
    found = pick({**looked_at, "abnormal": torch.zeros(1, 6, 7, 4)})
    noise = found["abnormal_vectors"] - found["vectors"]
    torch.testing.assert_close(noise.std(dim=0), 0.3 * found["vectors"].std(dim=0), rtol=0.05, atol=0)
    assert torch.equal(found["codes"], found["abnormal_codes"])


def test_a_place_may_have_a_depth():
    codes = feature_codes((3, 4, 5), 12, True, [], "t1")
    assert codes.shape == (3, 4, 5, 12) and not torch.allclose(codes[1, 1, 0], codes[1, 1, 3])
    flat = feature_codes((3, 4, 5), 12, False, [], "t1")
    assert torch.equal(flat[1, 1, 0], flat[1, 1, 3])
