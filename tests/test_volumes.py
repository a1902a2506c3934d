"""Volumes on the grids of others."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from monai.transforms.utils import create_rotate
from scripts import volumes
from scripts.errors import InputError
from scripts.volumes import FinerGridd, OnGridd, on_grid


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_slabs_make_what_one_resampling_makes(mode, monkeypatch):
    turned = torch.as_tensor(create_rotate(3, [0.3, -0.2, 0.5]))
    turned[:3, 3] = torch.tensor([5.0, -3.0, 2.0])
    values = torch.rand(2, 20, 24, 18, generator=torch.Generator().manual_seed(0))
    volume = MetaTensor(values, affine=turned * torch.tensor([2.0, 2.0, 3.0, 1.0]), meta={"filename_or_obj": "own"})
    grid = MetaTensor(torch.zeros(1, 31, 29, 33), affine=torch.diag(torch.tensor([1.5, -1.2, 1.0, 1.0])).double())
    grid.meta["filename_or_obj"] = "other"
    whole = ResampleToMatch(mode=mode, padding_mode="zeros", dtype=torch.float32)(volume, img_dst=grid)
    monkeypatch.setattr(volumes, "SLAB", 2000)  # many slabs, the last one thinner
    found = on_grid(volume, grid, mode)
    difference = (found.as_tensor() - whole.as_tensor()).abs()
    assert float(whole.max()) > 0.5 and found.dtype == torch.float32
    # Where a place lies half way between two voxels rounding decides which is nearest.
    assert float(difference.max()) < 1e-4 or (mode == "nearest" and float((difference > 1e-4).float().mean()) < 1e-3)
    torch.testing.assert_close(found.affine, grid.affine)
    assert found.meta["filename_or_obj"] == "own" and volume.shape == (2, 20, 24, 18)
    both = OnGridd(["a", "b"], "grid", mode, allow_missing_keys=True)({"a": volume, "grid": grid})
    assert torch.equal(both["a"].as_tensor(), found.as_tensor()) and "b" not in both


def test_a_header_stays_what_it_is_when_its_volume_is_resampled():
    """MONAI's resampling writes the new voxel size into the header of its input: results of a scan then had another qform."""
    header = np.array([1.0, 0.7, 0.7, 4.0, 0.0, 0.0, 0.0, 0.0], dtype=np.float32)
    scan = MetaTensor(
        torch.rand(1, 9, 9, 5), affine=torch.diag(torch.tensor([0.7, 0.7, 4.0, 1.0])), meta={"pixdim": header}
    )
    coarse = MetaTensor(torch.zeros(1, 4, 4, 10), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    coarse.meta["pixdim"] = np.array([1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0], dtype=np.float32)
    there = on_grid(scan, coarse)
    back = on_grid(there, scan)
    back.meta["pixdim"][1:4] = 9.0  # as a later transform of the result may
    assert scan.meta["pixdim"][1:4].tolist() == pytest.approx([0.7, 0.7, 4.0])
    assert coarse.meta["pixdim"][1:4].tolist() == [2.0, 2.0, 2.0]


def test_volumes_that_do_not_meet_give_nothing():
    volume = MetaTensor(torch.ones(1, 8, 8, 8), affine=torch.eye(4).double())
    away = torch.eye(4, dtype=torch.float64)
    away[0, 3] = 100.0
    assert float(on_grid(volume, MetaTensor(torch.zeros(1, 9, 9, 9), affine=away)).abs().max()) == 0.0
    away[0, 3] = -2.5  # half a voxel off: the outermost values fade to 0, as in MONAI
    grid = MetaTensor(torch.zeros(1, 14, 12, 10), affine=away)
    whole = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=torch.float32)(volume, img_dst=grid)
    torch.testing.assert_close(on_grid(volume, grid).as_tensor(), whole.as_tensor(), atol=1e-5, rtol=0.0)


def slices(thickness: float) -> MetaTensor:
    """A smooth wave along slices that run from left to right, with the header of its file."""
    affine = torch.diag(torch.tensor([1.0, 1.0, thickness, 1.0])).double()
    affine[0, 0] = -1.0
    z = torch.arange(12) * thickness
    wave = torch.cos(2 * torch.pi * z / 30.0).expand(1, 8, 8, -1).contiguous()
    return MetaTensor(
        wave, affine=affine, meta={"filename_or_obj": "scan.nii", "pixdim": torch.tensor([1.0, 1, 1, thickness])}
    )


def test_a_finer_grid_interpolates_thick_slices_alone():
    thick = slices(5.0)
    fine = FinerGridd("scan", 1.0)({"scan": thick})["scan"]
    assert fine.shape[1:3] == (8, 8) and fine.pixdim.tolist() == pytest.approx([1.0, 1.0, 1.0])
    # The same places, by the affine, have the values of the wave, which a straight line between slices would miss by .12.
    z = fine.affine[2, 2] * torch.arange(fine.shape[3]) + fine.affine[2, 3]
    inside = (z >= 5.0) & (z <= 50.0)
    error = (fine[0, 3, 3] - torch.cos(2 * torch.pi * z / 30.0)).abs()[inside]
    assert float(error.max()) < 0.03
    # The header told of another grid; the scan that was given is as it was.
    assert fine.meta["filename_or_obj"] == "scan.nii" and "pixdim" not in fine.meta
    assert thick.meta["pixdim"].tolist() == [1.0, 1.0, 1.0, 5.0]


def test_a_grid_that_is_fine_enough_stays():
    thick = slices(1.0)
    assert torch.equal(FinerGridd("scan", 1.0)({"scan": thick})["scan"].as_tensor(), thick.as_tensor())
    assert FinerGridd("scan", None)({"scan": thick})["scan"] is thick


@pytest.mark.parametrize("spacing", [0.0, -1.0, "fine", 100.0, True])
def test_voxels_that_cannot_be_are_refused(spacing):
    with pytest.raises(InputError, match="give 0.05 to 30 mm"):
        FinerGridd("scan", spacing)
