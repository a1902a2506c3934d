"""Whether an image looks like a T1w, where the answer is known."""

import numpy as np
import pytest
from scripts.evaluation import likeness, tissue_classes

RANDOM = np.random.RandomState(0)
TISSUES = RANDOM.choice(3, size=30_000, p=[0.2, 0.45, 0.35])
REAL = np.array([200.0, 620.0, 1000.0])[TISSUES] + RANDOM.normal(0.0, 40.0, TISSUES.shape)


def test_classes_are_the_tissues():
    classes, means = tissue_classes(REAL)
    assert (classes == TISSUES).mean() > 0.999
    np.testing.assert_allclose(means, [200.0, 620.0, 1000.0], rtol=0.02)


def test_another_scale_is_as_like():
    figures = likeness(REAL / 1333.0, REAL)
    assert figures["correlation"] == pytest.approx(1.0)
    assert figures["gray_share"] == pytest.approx(figures["real_gray_share"]) == pytest.approx(0.62, abs=0.01)
    assert [figures[f"dice_{tissue}"] for tissue in ("csf", "gray", "white")] == [1.0, 1.0, 1.0]


def test_gray_matter_that_is_drawn_as_white_matter():
    # A tenth of the gray matter: its Dice is 2 x 0.9 / (0.9 + 1).
    wrong = (TISSUES == 1) & (RANDOM.uniform(size=TISSUES.shape) < 0.1)
    figures = likeness(np.where(wrong, 1000.0, REAL), REAL)
    assert figures["dice_gray"] == pytest.approx(1.8 / 1.9, abs=0.005) and figures["dice_csf"] == 1.0
    assert figures["correlation"] < 0.99


def test_a_soft_white_brain_has_no_contrast():
    soft = np.array([0.2, 0.68, 0.75])[TISSUES] + RANDOM.normal(0.0, 0.01, TISSUES.shape)
    assert likeness(soft, REAL)["gray_share"] == pytest.approx(0.68 / 0.75, abs=0.01)
