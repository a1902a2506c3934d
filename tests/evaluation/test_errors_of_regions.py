import math
from functools import partial

import numpy as np
import pytest
import torch
from monai.metrics import PSNRMetric, SSIMMetric
from scipy.ndimage import gaussian_filter
from scripts.evaluation import COLUMNS, RegionErrors, region_errors


def reference_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wang et al. 2004 with scipy's Gaussian of sigma 5, cut to a window of 11, and data range 1."""
    mean = partial(gaussian_filter, sigma=5.0, truncate=1.0, mode="nearest")
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    healthy = torch.nn.functional.avg_pool3d(torch.rand(1, 24, 24, 24, generator=generator), 3, 1, 1)
    brain = torch.zeros(1, 24, 24, 24, dtype=torch.bool)
    brain[:, 4:20, 4:20, 4:20] = True
    lesion = torch.zeros_like(brain)
    lesion[:, 6:10, 6:10, 6:10] = True
    healthy = healthy * brain
    pred = healthy + 0.01 * brain + 0.09 * lesion  # off by 0.01 in the healthy part, by 0.1 in the lesion
    return pred, healthy, brain, lesion


def named(case, **kwargs) -> dict[str, float]:
    return dict(zip(COLUMNS, region_errors(*case, **kwargs).tolist()))


def test_values_by_hand(case):
    values = named(case)
    peak, brain, lesion = float(case[1].max()), 16**3, 4**3
    assert math.isclose(values["L1_D_region"], 0.1, rel_tol=1e-5)
    assert math.isclose(values["L1_H_region"], 0.01, rel_tol=1e-4)
    assert math.isclose(values["L1_F_region"], (0.1 * lesion + 0.01 * (brain - lesion)) / brain, rel_tol=1e-4)
    assert math.isclose(values["PSNR_D_region"], 20 * math.log10(peak / 0.1), rel_tol=1e-5)
    # The paper's code averages over the whole volume.
    assert math.isclose(values["L1_D_volume"], 0.1 * lesion / 24**3, rel_tol=1e-4)
    assert math.isclose(
        values["PSNR_D_volume"], 20 * math.log10(peak / 0.1) + 10 * math.log10(24**3 / lesion), rel_tol=1e-5
    )


def test_psnr_agrees_with_monai(case):
    pred, healthy, *_ = case
    everywhere = torch.ones_like(pred, dtype=torch.bool)
    ours = region_errors(pred, healthy, everywhere, case[3], ["PSNR_F_region"]).item()
    theirs = PSNRMetric(max_val=float(healthy.max()))(pred[None], healthy[None]).item()
    assert math.isclose(ours, theirs, rel_tol=1e-6)


def test_ssim_agrees_with_its_definition_and_with_monai(case):
    pred, healthy, brain, lesion = case
    inner = torch.zeros_like(brain)
    inner[:, 8:16, 8:16, 8:16] = True
    values = dict(zip(COLUMNS, region_errors(pred, healthy, inner, lesion)))
    full = reference_ssim(pred[0].double().numpy(), healthy[0].double().numpy())
    assert abs(float(values["SSIM_F_region"]) - full[inner[0].numpy()].mean()) < 1e-3
    assert float(values["SSIM_D_region"]) < float(values["SSIM_H_region"])
    everywhere = torch.ones_like(brain)
    valid = SSIMMetric(3, 1.0, win_size=11, kernel_sigma=5.0)(pred[None], healthy[None]).item()
    assert abs(valid - full[5:-5, 5:-5, 5:-5].mean()) < 1e-3
    assert region_errors(pred, pred, everywhere, lesion, ["SSIM_F_volume"]).item() == pytest.approx(1.0)


def test_a_region_without_voxels_is_left_out_of_the_mean(case):
    pred, healthy, brain, lesion = case
    metric = RegionErrors(["PSNR_D_region"])
    y = torch.stack([torch.cat([healthy, m.float(), brain.float()]) for m in (lesion, torch.zeros_like(lesion))])
    metric(torch.stack([pred, pred]), y)
    buffer = metric.get_buffer()
    assert np.isnan(buffer[1].item())
    assert metric.aggregate().item() == pytest.approx(buffer[0].item())
    assert metric.aggregate().ndim == 0
