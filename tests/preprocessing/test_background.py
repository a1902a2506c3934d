"""However the intensities of an MR scan were shifted before, the same brain comes out."""

import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.preprocessing import WindowCTd
from scripts.preprocessing.background import zero_background


@pytest.fixture(scope="module")
def brain():
    """An extracted brain of 50 to 1000 in a background of 0, with a hundredth of it nearly black."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.zeros(1, 40, 40, 40)
    volume[:, 8:32, 8:32, 8:32] = 50 + 950 * torch.rand(1, 24, 24, 24, generator=generator)
    volume[:, 8:32, 8:32, 8:9] *= 0.05
    return volume


def error(values: torch.Tensor, brain: torch.Tensor, scale: float = 1.0) -> float:
    out = zero_background(values)
    assert torch.isfinite(out).all() and out.min() >= 0
    return float(((out * scale - brain).abs()).mean() / brain[brain > 0].mean())


def test_shifts_of_the_background_are_undone(brain):
    inside = brain > 0
    mean, std = brain[inside].mean(), brain[inside].std()
    assert error(brain, brain) == 0.0
    assert error(brain + 100, brain) < 1e-6
    assert error(brain * 0.37 - 5, brain, 1 / 0.37) < 1e-5
    assert error(torch.where(inside, brain, torch.nan), brain) == 0.0
    assert error(torch.where(inside, brain, torch.inf), brain) == 0.0
    assert error((brain - mean) / std * inside, brain, float(std)) < 0.02  # demeaned inside the brain
    assert error((brain - brain.mean()) / brain.std(), brain, float(brain.std())) < 1e-5  # demeaned as a whole
    noisy = (brain + 10 * torch.rand(brain.shape)) - 500
    assert error(noisy, brain) < 0.05


def test_a_few_voxels_decide_nothing(brain):
    low = brain.clone()
    low[0, 3, 3, 3] = -5000.0
    assert error(low, brain) == 0.0
    undershoot = brain.clone()
    undershoot[0, 7, 8:20, 8:20] = -20.0
    assert error(undershoot, brain) < 1e-6


def test_what_the_user_says_wins_and_one_voxel_makes_no_ct(brain):
    low = brain * 12
    low[0, 3, 3, 3] = -301.0
    scan = MetaTensor(low)
    assert "modality" not in WindowCTd("image")({"image": scan})
    assert WindowCTd("image")({"image": scan, "modality": "t2"})["modality"] == "t2"
    ct = MetaTensor(torch.where(brain > 0, brain / 12, -1000.0))
    window = WindowCTd("image")({"image": ct})
    assert window["modality"] == "ct" and float(window["image"].max()) == 80.0
    kept = WindowCTd("image")({"image": ct, "modality": "t1"})
    assert kept["modality"] == "t1" and float(kept["image"].max()) > 1000.0


def test_few_bright_voxels_of_an_extracted_ct_are_a_calcification(brain):
    ct = torch.where(brain > 0, 20.0 + brain / 25, torch.tensor(0.0)).clamp(max=70.0)
    inside = (brain > 0).nonzero()
    for x in inside[len(inside) // 2 : len(inside) // 2 + 8]:
        ct[tuple(x)] = 300.0
    window = WindowCTd("image")({"image": MetaTensor(ct), "modality": "ct"})
    assert float(window["image"].max()) == 80.0
    with pytest.raises(InputError, match="are not Hounsfield units"):
        WindowCTd("image")({"image": MetaTensor(brain), "modality": "ct"})
