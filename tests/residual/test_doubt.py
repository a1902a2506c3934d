"""Where a scan may be ill."""

import torch
from conftest import ball
from monai.data import MetaTensor
from scripts.residual import doubt

BRAIN = ball(40, 16.0)[None]
AFFINE = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))


def volume(values: torch.Tensor) -> MetaTensor:
    return MetaTensor(values.float(), affine=AFFINE)


def case() -> tuple[MetaTensor, MetaTensor, torch.Tensor]:
    """A scan with a lesion, its intact scan, and the lesion."""
    random = torch.Generator().manual_seed(0)
    healthy = (0.4 + 0.02 * torch.randn(BRAIN.shape, generator=random)) * BRAIN
    lesion = torch.zeros_like(BRAIN)
    lesion[0, 22:28, 18:24, 18:24] = True
    noise = 0.01 * torch.randn(BRAIN.shape, generator=random) * BRAIN
    return volume(torch.where(lesion, 0.9, healthy)), volume(healthy + noise), lesion


def test_a_lesion_that_the_intact_scan_does_not_have_is_in_doubt():
    scan, intact, lesion = case()
    found = doubt(scan, BRAIN, None, intact)
    assert (found[lesion] == 1.0).all()
    near = torch.nn.functional.max_pool3d(lesion.float(), 9, 1, 4) > 0
    assert float(found[BRAIN & ~near].median()) < 0.5  # noise is a little doubt


def test_what_a_score_nearly_marks_is_in_doubt_and_a_voxel_around():
    scan, _, lesion = case()
    found = doubt(scan, BRAIN, volume(0.5 * lesion.float()))
    assert (found[lesion] == 1.0).all() and int((found > 0).sum()) == 8**3
    half = doubt(scan, BRAIN, volume(0.25 * lesion.float()))
    assert float(half.max()) == 0.25  # little signs count little


def test_doubt_without_signs_is_none():
    scan, _, _ = case()
    assert not doubt(scan, BRAIN).any()
    assert float(doubt(scan, BRAIN, None, scan).max()) == 0.0
