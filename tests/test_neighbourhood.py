"""What a mask encloses."""

import pytest
import torch
from conftest import ball
from scripts.neighbourhood import SURROUNDINGS, closed, surroundings


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 3.0)])
def test_a_cleft_narrower_than_the_ball_is_closed_and_a_wider_one_is_not(spacing):
    def halves(gap_mm: int) -> torch.Tensor:
        mask = torch.ones(1, 30, 60, 20, dtype=torch.bool)
        mask[:, :, 30 - gap_mm // 2 : 30 + gap_mm // 2] = False
        return mask

    # The mouths of the cleft, at the border of the grid, stay open.
    assert bool(closed(halves(8), 5.0, spacing)[:, 6:-6, :, 6:-6].all())
    wide = halves(14)
    assert torch.equal(closed(wide, 5.0, spacing), wide)


def test_a_closing_adds_nothing_to_a_ball_and_what_is_asked_for_beyond_it():
    place = torch.stack(torch.meshgrid(*[torch.arange(41.0)] * 3, indexing="ij")) - 20.0
    distance = place.norm(dim=0)[None]
    ball = distance <= 10.0
    assert torch.equal(closed(ball, 6.0, (1.0, 1.0, 1.0)), ball)
    grown = closed(ball, 6.0, (1.0, 1.0, 1.0), beyond=3.0)
    assert bool(grown[distance <= 12.0].all()) and not bool(grown[distance >= 14.0].any())


def test_what_is_told_of_a_voxel():
    brain = ball(40, 16.0)[None]
    image = torch.rand(brain.shape, generator=torch.Generator().manual_seed(0))
    rows = surroundings(image, brain, 2.0)
    assert rows.shape == (int(brain.sum()), SURROUNDINGS)
    torch.testing.assert_close(rows[:, 0], image[brain])
    assert (rows[:, 4] >= rows[:, 0]).all() and (rows[:, 5] <= rows[:, 0]).all()
    # Left and right are told the same: the mirror image of a brain has the rows of the brain.
    mirrored = surroundings(image.flip(1), brain.flip(1), 2.0)
    order = brain.float().clone()
    order[brain] = torch.arange(float(brain.sum()))
    back = order.flip(1)[brain.flip(1)].long()
    torch.testing.assert_close(mirrored, rows[back], atol=1e-4, rtol=1e-4)
