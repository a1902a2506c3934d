"""Blending on the scan's own grid: what the weights say, at the resolution of the scan."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.residual import FineBlend, FineBlendd
from scripts.volumes import on_grid

SCALE = 700.0  # of the scan, whose prepared intensities are in [0, 1]
REFLECTION = np.diag([-1.0, 1.0, 1.0, 1.0])  # the mid-sagittal plane is x = 0


def grid(size: int, spacing: float, turned: bool = False) -> MetaTensor:
    """A cube around the origin; turned: left to right, as a scanner may give it."""
    affine = np.diag([-spacing if turned else spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(size - 1) / 2 * np.diag(affine)[:3]
    return MetaTensor(torch.zeros(1, size, size, size), affine=torch.from_numpy(affine))


def places(volume: MetaTensor) -> np.ndarray:
    """RAS mm of every voxel, ``(3, X, Y, Z)``."""
    index = np.indices(volume.shape[1:]).reshape(3, -1)
    affine = np.asarray(volume.affine)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *volume.shape[1:])


@pytest.fixture
def scan() -> MetaTensor:
    """Fine texture in a ball, different on both sides, on a 1 mm grid that runs from right to left."""
    fine = grid(40, 1.0, turned=True)
    x, y, z = places(fine)
    texture = 0.5 + 0.2 * np.cos(1.9 * y + 1.3 * z) + 0.1 * (x > 0)
    values = np.where(x**2 + y**2 + z**2 < 15.0**2, SCALE * texture, 0.0)
    return MetaTensor(torch.from_numpy(values.astype(np.float32))[None], affine=fine.affine)


@pytest.fixture
def coarse(scan):
    """The prepared scan and its brain on a grid of 2 mm."""
    prepared = on_grid(scan, grid(20, 2.0))
    return prepared / SCALE, MetaTensor((prepared > 0).float().as_tensor(), affine=prepared.affine)


def weights_of(*constants: float) -> MetaTensor:
    coarse = grid(20, 2.0)
    return MetaTensor(
        torch.tensor(constants)[:, None, None, None].expand(-1, 20, 20, 20).contiguous(), affine=coarse.affine
    )


def inner(volume: MetaTensor, radius: float = 12.0) -> torch.Tensor:
    return torch.from_numpy((places(volume) ** 2).sum(axis=0) < radius**2)[None]


def test_the_scan_comes_back_with_all_its_detail(scan, coarse):
    prepared, brain = coarse
    fine = FineBlend()(weights_of(1.0, 0.0, 0.0, 0.0, 0.0, 0.3), scan, prepared, brain, REFLECTION)
    assert fine.shape == (2, 40, 40, 40)
    torch.testing.assert_close(fine.affine, scan.affine)
    same, constant = fine.as_tensor().split(1)
    inside = inner(scan)
    # One factor for all voxels; the texture of 3 mm is lost on the grid of 2 mm.
    torch.testing.assert_close(same[inside] * SCALE, scan.as_tensor()[inside], rtol=0.02, atol=0.0)
    enlarged = on_grid(prepared, scan).as_tensor()
    assert (enlarged - scan.as_tensor() / SCALE)[inside].abs().mean() > 5 * (same - scan.as_tensor() / SCALE)[
        inside
    ].abs().mean()
    assert constant[inside].sub(0.3).abs().max() < 1e-5
    outside = torch.from_numpy((places(scan) ** 2).sum(axis=0) > 17.0**2)
    assert not fine.as_tensor()[:, outside].any()


def test_the_partner_is_the_other_side(scan, coarse):
    prepared, brain = coarse
    mirrored = FineBlend()(weights_of(0.0, 1.0, 0.0), scan, prepared, brain, REFLECTION)
    inside = inner(scan)
    # The grid is symmetric: the mirror image is the scan turned around, and the sides differ by 0.1.
    torch.testing.assert_close(mirrored[inside] * SCALE, scan.as_tensor().flip(1)[inside], rtol=0.02, atol=1.0)
    assert abs(float((mirrored * SCALE - scan.as_tensor())[inside].abs().mean()) - 0.1 * SCALE) < 0.02 * SCALE


def test_weights_that_rise_are_interpolated(scan, coarse):
    prepared, brain = coarse
    weights = weights_of(0.0, 0.0, 0.0)
    rising = torch.from_numpy(places(weights)[1]).float() / 40.0
    fine = FineBlend()(
        MetaTensor(torch.cat([weights.as_tensor()[:2], rising[None]]), affine=weights.affine),
        scan,
        prepared,
        brain,
        REFLECTION,
    )
    inside = inner(scan)
    torch.testing.assert_close(
        fine.as_tensor()[inside], torch.from_numpy(places(scan)[1]).float()[None][inside] / 40.0, atol=1e-5, rtol=0.0
    )


def test_a_case_without_weights_stays():
    data = {"pred_healthy": torch.ones(1), "pred_intact": torch.ones(1)}
    assert FineBlendd(["pred_healthy", "pred_intact"])(data) == data
