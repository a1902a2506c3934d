"""The detail of the scan in what a network drew: where the scan is healthy, in the contrast that was drawn, and nowhere else."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from scripts.residual import FineDetail, FineDetaild
from scripts.volumes import on_grid

SCALE = 700.0  # of the scan, whose prepared intensities are in [0, 1]
COARSE, FINE = 2.0, 1.0  # mm


def grid(spacing: float, turned: bool = False) -> MetaTensor:
    """A cube of 64 mm around the origin; turned: left to right, as a scanner may give it."""
    size = int(64 / spacing)
    affine = np.diag([-spacing if turned else spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(size - 1) / 2 * np.diag(affine)[:3]
    return MetaTensor(torch.zeros(1, size, size, size), affine=torch.from_numpy(affine))


def places(volume: MetaTensor) -> np.ndarray:
    """RAS mm of every voxel, ``(3, X, Y, Z)``."""
    index = np.indices(volume.shape[1:]).reshape(3, -1)
    affine = np.asarray(volume.affine)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *volume.shape[1:])


def ball(volume: MetaTensor, radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
    away = places(volume) - np.reshape(centre, (3, 1, 1, 1))
    return torch.from_numpy((away**2).sum(axis=0) < radius**2)[None]


def healthy_t1(scan: torch.Tensor) -> torch.Tensor:
    """The T1w of a scan: bright where that is dark."""
    return 0.95 - 0.9 * scan + 0.2 * (scan - 0.5) ** 2


@pytest.fixture
def scan() -> MetaTensor:
    """Waves of 3 and of 16 mm in a ball of 28 mm, in [0, 1], on a grid that runs from right to left."""
    fine = grid(FINE, turned=True)
    x, y, z = places(fine)
    values = 0.5 + 0.15 * np.cos(1.9 * y + 0.7 * z) + 0.2 * np.sin(0.4 * x)
    return MetaTensor(torch.from_numpy(values).float()[None] * ball(fine, 28.0), affine=fine.affine)


def seen_by_a_network(scan: MetaTensor, t1: torch.Tensor) -> dict[str, MetaTensor]:
    """A case: the scan as stored, and on 2 mm the scan, its brain and a healthy T1w."""
    coarse = grid(COARSE)
    return {
        "original": scan * SCALE,
        "scan": on_grid(scan, coarse),
        "brain": MetaTensor(ball(coarse, 28.0).float(), affine=coarse.affine),
        "pred_healthy": on_grid(MetaTensor(t1, affine=scan.affine), coarse),
        "modality": "t2",
    }


def error(case: dict, truth: torch.Tensor, where: torch.Tensor) -> tuple[float, float]:
    """Mean error of the enlarged image, and of that with detail."""
    enlarged = on_grid(case["pred_healthy"], case["original"]).as_tensor()
    fine = FineDetaild("pred_healthy")(case)["pred_healthy"]
    torch.testing.assert_close(fine.affine, case["original"].affine)
    return tuple(float((image - truth).abs()[where].mean()) for image in (enlarged, fine.as_tensor()))


def test_a_t1w_drawn_on_2_mm_gets_the_waves_of_3_mm(scan):
    truth = healthy_t1(scan.as_tensor())
    enlarged, fine = error(seen_by_a_network(scan, truth), truth, ball(scan, 22.0))
    assert enlarged > 0.05 and fine < enlarged / 3


def test_what_the_scan_does_not_explain_is_interpolated(scan):
    rising = torch.from_numpy(0.4 + places(scan)[2] / 100.0).float()[None]
    case = seen_by_a_network(scan, rising)
    inside = ball(scan, 22.0)
    enlarged, fine = error(case, rising, inside)
    assert enlarged < 1e-4 and fine < 0.01


def test_an_even_brain_stays_even_up_to_its_surface(scan):
    # A network draws it fading at the surface.
    case = seen_by_a_network(scan, scan.as_tensor())
    soft = GaussianFilter(3, 0.4)(0.6 * case["brain"].as_tensor()[None])[0]
    case |= {"pred_healthy": MetaTensor(soft, affine=case["brain"].affine)}
    found = FineDetaild("pred_healthy")(case)["pred_healthy"]
    shell = ball(scan, 26.5) & ~ball(scan, 24.0)
    fine, enlarged = (
        float((v.as_tensor()[shell] - 0.6).abs().mean()) for v in (found, on_grid(case["pred_healthy"], scan))
    )
    assert fine < 0.02 and fine < 0.8 * enlarged
    assert (found[ball(scan, 24.0)] - 0.6).abs().max() < 0.01


@pytest.mark.parametrize("level", [0.1, 1.0])
def test_a_lesion_leaves_no_trace(scan, level):
    # The network drew the healthy brain; the scan is dark, or bright, and grained in a ball of 8 mm.
    truth, lesion = healthy_t1(scan.as_tensor()), ball(scan, 8.0, (5.0, 0.0, 0.0))
    grain = 0.05 * torch.randn(scan.shape, generator=torch.Generator().manual_seed(0))
    case = seen_by_a_network(scan, truth)
    ill = MetaTensor(torch.where(lesion, level + grain, scan.as_tensor()).clamp(0.0, 1.0), affine=scan.affine)
    case |= {"original": ill * SCALE, "scan": on_grid(ill, case["scan"])}
    core, away = ball(scan, 5.0, (5.0, 0.0, 0.0)), ball(scan, 22.0) & ~ball(scan, 14.0, (5.0, 0.0, 0.0))
    enlarged, fine = error(case, truth, core)
    assert fine < 1.05 * enlarged
    enlarged, fine = error(case, truth, away)
    assert fine < enlarged / 2


def test_the_scale_of_the_scan_does_not_matter(scan):
    case = seen_by_a_network(scan, healthy_t1(scan.as_tensor()))
    found = [FineDetaild("pred_healthy")({**case, "original": scan * s})["pred_healthy"] for s in (1.0, 3000.0)]
    torch.testing.assert_close(*found, atol=1e-3, rtol=0.0)
    assert not found[0][~ball(scan, 31.0)].any()


def test_a_ct_is_cut_to_its_window(scan):
    # Bone and air around the brain must not tell the scale of what the network saw in its window.
    case = seen_by_a_network(scan, healthy_t1(scan.as_tensor()))
    around = torch.where(ball(scan, 31.0), 1000.0, -1000.0)
    hounsfield = MetaTensor(torch.where(ball(scan, 28.0), scan.as_tensor() * 80.0, around), affine=scan.affine)
    found = FineDetaild("pred_healthy")({**case, "original": hounsfield, "modality": "ct"})
    plain = FineDetaild("pred_healthy")({**case, "original": scan * 80.0, "modality": "t1"})
    inside = ball(scan, 22.0)
    torch.testing.assert_close(found["pred_healthy"][inside], plain["pred_healthy"][inside], atol=1e-3, rtol=0.0)


def test_no_brain_and_no_image(scan):
    case = seen_by_a_network(scan, scan.as_tensor())
    empty = FineDetail()(case["pred_healthy"], case["original"], case["scan"], case["brain"] * 0.0)
    assert empty.shape == scan.shape and not empty.any()
    assert FineDetaild("missing", allow_missing_keys=True)(case) == case
