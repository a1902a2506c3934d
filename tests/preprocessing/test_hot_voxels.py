"""Hot voxels change nothing, wherever they lie; what is larger than a voxel stays."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.preprocessing import ReadScand
from scripts.preprocessing.hot_voxels import without_hot_voxels


@pytest.fixture
def scan() -> torch.Tensor:
    """A smooth head with noise on a background of 0."""
    random = np.random.RandomState(0)
    x, y, z = np.indices((48, 50, 44)) - 23.5
    radius = np.sqrt(x**2 + y**2 + z**2)
    values = np.where(radius < 20, 300 + 200 * np.sin(radius / 4) + random.normal(0, 15, radius.shape), 0.0)
    return torch.from_numpy(values.clip(min=0).astype(np.float32))[None]


@pytest.mark.parametrize("level", [5000.0, 32767.0, -30000.0])
@pytest.mark.parametrize("share", [0.0005, 0.005])
def test_spikes_are_replaced(scan, level, share):
    random = np.random.RandomState(1)
    hot = torch.from_numpy(random.rand(*scan.shape) < share)
    spoilt = torch.where(hot, torch.tensor(level), scan)
    cleaned, count = without_hot_voxels(spoilt)
    assert count == pytest.approx(int(hot.sum()), rel=0.02)
    # All others are what they were, and the hot ones near it.
    assert torch.equal(cleaned[~hot], scan[~hot])
    assert float((cleaned - scan).abs().max()) < 350.0
    assert float((cleaned - scan).abs()[hot].median()) < 60.0


def test_a_sound_scan_and_a_bright_vessel_stay(scan):
    cleaned, count = without_hot_voxels(scan)
    assert count == 0 and cleaned is scan
    vessel = scan.clone()
    vessel[0, 20:23, 10:40, 20:23] = 2000.0
    assert torch.equal(without_hot_voxels(vessel)[0], vessel)


def test_voxels_that_are_not_finite_stay(scan):
    spoilt = scan.clone()
    spoilt[0, 20, 20, 20], spoilt[0, 25, 25, 25], spoilt[0, 5, 5, 5] = torch.nan, torch.inf, 1e5
    cleaned, count = without_hot_voxels(spoilt)
    assert count == 1 and torch.isnan(cleaned[0, 20, 20, 20]) and torch.isinf(cleaned[0, 25, 25, 25])


def test_the_report_is_told(scan, tmp_path):
    from scripts.saving import save_volume

    scan[0, 24, 24, 24] = 9000.0
    save_volume(MetaTensor(scan, affine=np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "scan.nii.gz", np.float32)
    read = ReadScand("image")({"image": str(tmp_path / "scan.nii.gz")})["image"]
    assert float(read.max()) < 700.0
    [warning] = read.meta["scan_warnings"]
    assert warning.startswith("1 single voxels far outside of the range")
