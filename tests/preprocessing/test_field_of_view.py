"""What lies beside the border of a scan has no score, in any orientation of the scan, and the scan says so."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.methods import Method
from scripts.preprocessing import FieldOfViewd, depth_in_field_of_view


def volume(shape, affine) -> MetaTensor:
    return MetaTensor(torch.ones(1, *shape), affine=torch.as_tensor(affine, dtype=torch.float64))


GRID = volume((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))  # the centres of its voxels lie at 0 to 78 mm


def test_depth_below_the_faces_of_a_scan_of_thick_slices_that_runs_from_right_to_left():
    # 80 x 60 mm in plane, 10 slices of 5 mm: its faces lie at -1 and 79 mm, at -1 and 59 mm, and at 9.5 and 59.5 mm.
    affine = np.diag([-2.0, 1.0, 5.0, 1.0])
    affine[:3, 3] = [78.0, -0.5, 12.0]
    depth = depth_in_field_of_view(GRID, volume((40, 60, 10), affine))
    for voxel, expected in {
        (20, 15, 17): 24.5,
        (0, 15, 17): 1.0,
        (20, 29, 17): 1.0,
        (20, 15, 5): 0.5,
        (20, 15, 4): -1.5,
    }.items():
        assert depth[voxel] == pytest.approx(expected)


def test_depth_in_a_turned_scan():
    angle = np.deg2rad(30.0)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    size = 41
    affine[:3, 3] = np.array([40.0, 40.0, 40.0]) - affine[:3, :3] @ np.full(3, (size - 1) / 2)
    depth = depth_in_field_of_view(GRID, volume((size,) * 3, affine))
    assert depth[20, 20, 20] == pytest.approx(size / 2)
    along = 10 * np.array([np.cos(angle), np.sin(angle)])  # 10 mm towards a face
    nearest = np.rint((40.0 + along) / 2).astype(int)
    off = 2.0 * nearest - 40.0
    toward = off @ along / 10
    assert depth[nearest[0], nearest[1], 20] == pytest.approx(size / 2 - toward)


class Everywhere(Method):
    def maps(self, case):
        return {"score": torch.ones(case["scan"].shape)}


def test_a_cut_brain_has_no_score_at_the_cut_and_its_report_says_so():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    scan = volume((40, 40, 30), affine)  # the head goes on above the last slice
    brain = volume((40, 40, 40), affine)
    brain[0, :10] = brain[0, :, :10] = brain[0, 30:] = brain[0, :, 30:] = brain[0, :, :, :10] = brain[0, :, :, 30:] = (
        0.0
    )
    case = FieldOfViewd("original", margin=4.0)(
        {"original": scan, "scan": GRID, "mirrored": GRID, "brain": brain, "modality": "t1"}
    )
    (warning,) = case["original"].meta["scan_warnings"]
    assert warning == "6 ml of the brain lie within 4 mm of the border of the scan, and have no score"
    score = Everywhere()(case)["score"][0]
    assert score[20, 20, 27] == 1.0 and not score[:, :, 28:].any()
    assert score.sum() == brain[0, :, :, :28].sum()
