"""A random curve changes the contrast and nothing else."""

import torch
from scripts.appearance import RandContrastCurve

KNOTS = [0.25, 0.5, 0.75, 1.0]
ANY = [{"values": [[0.05, 1.0]] * 4}]


def test_a_curve_is_a_function_of_intensity_that_keeps_the_background():
    ramp = torch.linspace(0, 1, 101)[None]
    changed = [RandContrastCurve(KNOTS, ANY, prob=1.0).set_random_state(seed)(ramp) for seed in range(20)]
    for curve in changed:
        assert curve[0, 0] == 0 and curve.max() <= 1
        # Linear between the knots: the middle of two neighbours of one piece is their mean.
        torch.testing.assert_close(curve[0, 10], (curve[0, 9] + curve[0, 11]) / 2)
    torch.testing.assert_close(
        RandContrastCurve(KNOTS, ANY, prob=1.0).set_random_state(3)(ramp), changed[3], rtol=0, atol=0
    )
    # A T1w that stays one half of the time would teach nothing: all orders of CSF, gray and white matter occur.
    orders = {tuple(curve[0, [25, 50, 75]].argsort().tolist()) for curve in changed}
    assert len(orders) == 6


def test_a_scan_is_left_alone_as_often_as_asked():
    ramp = torch.linspace(0, 1, 11)[None]
    transform = RandContrastCurve(KNOTS, ANY, prob=0.3).set_random_state(0)
    changed = sum(not torch.equal(transform(ramp), ramp) for _ in range(300))
    assert 60 < changed < 120


def test_a_contrast_is_drawn_from_its_ranges_as_often_as_it_weighs():
    dark, bright = ({"weight": w, "values": [[v, v + 0.1]] * 4} for w, v in ((3, 0.1), (1, 0.8)))
    transform = RandContrastCurve(KNOTS, [dark, bright], prob=1.0).set_random_state(0)
    drawn = torch.stack([transform(torch.tensor([KNOTS]))[0] for _ in range(400)])
    low, high = ((drawn >= v) & (drawn <= v + 0.1) for v in (0.1, 0.8))
    assert (low.all(1) | high.all(1)).all() and 0.65 < low.all(1).float().mean() < 0.85
