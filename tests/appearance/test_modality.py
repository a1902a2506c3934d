import numpy as np
import pytest
import torch
from conftest import asymmetric_brain
from scripts.appearance import RandModality, RandModalityd
from scripts.errors import InputError

PLAIN = {"weight": 1.0, "mean": (25, 225), "std": (5, 25)}
SHARP = {"partial_volume": 0.0}


@pytest.fixture
def label_map() -> torch.Tensor:
    return torch.tensor(asymmetric_brain()[0])[None].long()


def test_each_label_has_its_drawn_mean_and_deviation(labels):
    label_map = torch.zeros(1, 40, 40, 40, dtype=torch.long)
    label_map[:, :20], label_map[:, 20:] = 2, 3
    transform = RandModality(labels, **SHARP)
    for seed in range(5):
        image = transform.set_random_state(seed)(label_map) * 255
        for label in (2, 3):
            mean, std = float(transform.mu[label]), float(transform.sigma[label])
            assert 25 <= mean <= 225 and 5 <= std <= 25
            if mean > 4 * std:  # no cut at 0
                voxels = image[label_map == label]
                assert abs(float(voxels.mean()) - mean) < 1.0 and abs(float(voxels.std()) - std) < 0.5


def test_left_and_right_share_a_draw_and_means_are_uniform(labels):
    transform = RandModality(labels)
    means = []
    for seed in range(300):
        transform.set_random_state(seed)
        transform.randomize()
        assert torch.equal(transform.mu[labels.left], transform.mu[labels.right])
        means.append(float(transform.mu[2]))
    assert 115 < np.mean(means) < 135 and abs(np.std(means) - 200 / 12**0.5) < 6


def test_background_is_dark_half_of_the_time(labels, label_map):
    transform = RandModality(labels, **SHARP)
    dark = sum(not transform.set_random_state(seed)(label_map)[label_map == 0].any() for seed in range(200))
    assert 75 < dark < 125


def test_ct_like_appearance_orders_the_tissues(labels, label_map):
    ct = {
        "weight": 1.0,
        "mean": [150, 200],
        "std": [5, 25],
        "tissues": {"white_matter": [90, 110], "gray_matter": [110, 130]},
    }
    transform = RandModality(labels, [ct])
    for seed in range(50):
        transform.set_random_state(seed)
        transform.randomize()
        assert 90 <= transform.mu[2] <= 110 <= transform.mu[42] <= 130 and 150 <= transform.mu[16] <= 200


def test_partial_volume_mixes_at_borders_only(labels):
    label_map = torch.zeros(1, 24, 12, 12, dtype=torch.long)
    label_map[:, :12], label_map[:, 12:] = 2, 3
    flat = {"weight": 1.0, "mean": (25, 225), "std": (0, 0)}
    transform = RandModality(labels, [flat], partial_volume=0.7).set_random_state(1)
    profile = transform(label_map)[0, 4:20, 6, 6] * 255
    wm, gm = float(transform.mu[2]), float(transform.mu[3])
    torch.testing.assert_close(profile[0], torch.tensor(wm), atol=0.1, rtol=0)
    torch.testing.assert_close(profile[-1], torch.tensor(gm), atol=0.1, rtol=0)
    assert min(wm, gm) + 1 < float(profile[7]) < max(wm, gm) - 1
    assert (profile.diff() * np.sign(gm - wm) >= -1e-3).all()


def test_same_seed_same_image_and_a_real_image_may_be_kept(labels, label_map):
    first, again, other = (RandModality(labels).set_random_state(s)(label_map) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    keep = RandModalityd("label", labels, image_key="t1", overwrite=False)
    assert keep({"label": label_map, "t1": first})["t1"] is first
    assert "t1" in keep({"label": label_map})


def test_unknown_tissue_is_named(labels):
    with pytest.raises(InputError, match="tissue 'bone'"):
        RandModality(labels, [{**PLAIN, "tissues": {"bone": [0, 1]}}])
