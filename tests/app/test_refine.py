"""Clicks on a mask, by themselves."""

import numpy as np
import pytest
from lib.refine import refined
from scripts.errors import InputError

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def scene():
    """A brain with a found lesion, a missed one below the threshold, and a weak score everywhere."""
    shape = (60, 60, 30)
    brain = np.ones(shape, dtype=bool)
    score = np.full(shape, 0.02)
    score[10:16, 10:16, 5:8] = 0.3
    score[40:46, 40:46, 20:23] = 0.08
    return score > 0.12, score, brain


def test_a_click_adds_the_missed_lesion_and_no_more(scene):
    mask, score, brain = scene
    new = refined(mask, score, brain, AFFINE, add=[[42, 42, 21]])
    assert (new[40:46, 40:46, 20:23]).all()
    assert new.sum() == mask.sum() + 6 * 6 * 3


def test_a_click_beside_the_lesion_still_means_it(scene):
    mask, score, brain = scene
    assert (refined(mask, score, brain, AFFINE, add=[[38, 42, 21]])[40:46, 40:46, 20:23]).all()


def test_a_click_removes_the_lesion_under_it_and_no_other(scene):
    mask, score, brain = scene
    both = refined(mask, score, brain, AFFINE, add=[[42, 42, 21]])
    new = refined(both, score, brain, AFFINE, remove=[[12, 12, 6]])
    assert not new[10:16, 10:16, 5:8].any() and new[40:46, 40:46, 20:23].all()


def test_where_nothing_stands_out_the_click_alone_counts(scene):
    mask, score, brain = scene
    new = refined(mask, np.full_like(score, 0.02), brain, AFFINE, add=[[30, 30, 15]])
    added = np.argwhere(new & ~mask)
    distance = np.linalg.norm((added - [30, 30, 15]) * [1, 1, 2], axis=1)
    assert len(added) > 20 and distance.max() <= 3.0


def test_no_click_reaches_far(scene):
    _, score, brain = scene
    tube = np.zeros(score.shape, dtype=bool)
    tube[:, 30, 15] = True
    new = refined(tube, score, brain, AFFINE, remove=[[0, 30, 15]])
    assert not new[:26, 30, 15].any() and new[26:, 30, 15].all()


def test_clicks_outside_are_refused(scene):
    mask, score, brain = scene
    with pytest.raises(InputError, match="outside the scan"):
        refined(mask, score, brain, AFFINE, add=[[60, 0, 0]])
    before = mask.copy()
    assert (refined(mask, score, brain, AFFINE, remove=[[50, 5, 25]]) == before).all()  # nothing there
