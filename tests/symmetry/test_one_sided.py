"""Lesions of one side."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from scripts.symmetry import Mirror, RandOneSided, RandOneSidedd

PLANE = np.array([[-1.0, 0, 0, 4.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # at x = 2 mm


def two_lesions(left: float, right: float) -> MetaTensor:
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, 3] = -9.5
    anomaly = torch.zeros(1, 20, 20, 20)
    anomaly[:, 3:6, 8:12, 8:12], anomaly[:, 17:19, 8:12, 8:12] = left, right
    return MetaTensor(anomaly, affine=affine)


@pytest.mark.parametrize("axcodes", ["RAS", "LAS", "PIR", "SAL"])
@pytest.mark.parametrize(("left", "right", "cleared"), [(1.0, 1.0, 17), (0.1, 1.0, 3)])
def test_the_smaller_lesion_goes_in_any_orientation(axcodes, left, right, cleared):
    anomaly = two_lesions(left, right)
    wanted = anomaly.as_tensor().clone()
    wanted[:, cleared : cleared + 3] = 0.0
    turned = RandOneSided(prob=1.0)(Orientation(axcodes, labels=None)(anomaly), PLANE)
    torch.testing.assert_close(Orientation("RAS", labels=None)(turned).as_tensor(), wanted)


def test_what_is_left_has_no_partner():
    # A lesion that reaches over a plane which lies askew.
    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    plane = turn @ PLANE @ np.linalg.inv(turn)
    anomaly = two_lesions(1.0, 1.0)
    anomaly[:, 5:17, 9:11] = 1.0
    kept = RandOneSided(prob=1.0)(anomaly, plane)
    assert 0 < kept.sum() < anomaly.sum()
    both = (kept > 0.5) & (Mirror("nearest")(kept, plane) > 0.5)
    assert both.sum() <= 0.1 * (kept > 0.5).sum()  # voxels that the plane cuts


def test_it_stays_as_it_is_as_often_as_asked():
    anomaly, brain = two_lesions(1.0, 0.5), torch.ones(1, 20, 20, 20)
    brain = MetaTensor(brain, affine=anomaly.affine)
    transform = RandOneSidedd("anomaly", prob=0.3).set_random_state(0)
    sums = [float(transform({"anomaly": anomaly, "brain": brain})["anomaly"].sum()) for _ in range(400)]
    assert np.mean(np.array(sums) == float(anomaly.sum())) == pytest.approx(0.7, abs=0.07)
