"""The blur against MONAI's and scipy's."""

import pytest
import torch
from monai.networks.layers import GaussianFilter
from scipy.ndimage import gaussian_filter
from scripts.blur import gaussian_blur


@pytest.mark.parametrize("sigma", [0.5, 2.0, (0.7, 3.0, 1.5), (4.0, 0.5, 9.0)])
def test_equals_monai(sigma):
    volume = torch.rand(2, 20, 31, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussian_blur(volume, sigma), GaussianFilter(3, sigma)(volume[None])[0])


def test_close_to_scipy_and_zero_leaves_an_axis_alone():
    volume = torch.rand(1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(gaussian_filter(volume[0].numpy(), (1.5, 0.0, 3.0), mode="constant"))
    torch.testing.assert_close(gaussian_blur(volume, (1.5, 0.0, 3.0))[0], expected, atol=0.01, rtol=0.02)
    assert gaussian_blur(volume, 0.0) is volume
