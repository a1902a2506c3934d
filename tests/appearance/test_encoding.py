from itertools import pairwise

import numpy as np
import pytest
import torch
from scripts.appearance import RandAnomalyEncoding, RandAnomalyEncodingd
from scripts.errors import InputError


def scene(white: float, gray: float):
    label = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    label[:, 2:8, 2:14, 2:14], label[:, 8:14, 2:14, 2:14] = 2, 3
    image = torch.zeros(label.shape)
    image[label == 2], image[label == 3] = white, gray
    anomaly = torch.zeros(label.shape)
    anomaly[:, 6:10, 6:10, 6:10] = 0.5
    return image, anomaly, label


@pytest.mark.parametrize(("white", "gray", "sign"), [(0.8, 0.5, -1.0), (0.5, 0.8, 1.0)], ids=["T1w-like", "T2w-like"])
def test_change_has_the_distribution_of_eq_6(labels, white, gray, sign):
    image, anomaly, label = scene(white, gray)
    image[anomaly > 0] = 10.0 * white  # bright enough that the cut at 0, which is no part of Eq. 6, is not reached
    mu = image[labels.mask(label, "white_matter")].mean().item()
    expected = -1.0 if mu > image[labels.mask(label, "gray_matter")].mean() else 1.0
    assert expected == sign
    transform = RandAnomalyEncoding(labels, random_sign_prob=0.0)
    changes = np.array(
        [
            ((transform.set_random_state(seed)(image, anomaly, label) - image)[anomaly > 0] / 0.5 / mu).numpy()
            for seed in range(800)
        ]
    )
    assert abs(changes[:, 0].mean() - sign * 0.5) < 0.06
    assert abs(changes[:, 0].std() - 0.5) < 0.04
    assert abs(changes.std(axis=1).mean() - 0.5 * 0.04**0.5) < 0.01  # the share drawn anew in every voxel


def test_only_the_anomaly_is_touched_and_nothing_is_negative(labels):
    image, anomaly, label = scene(0.8, 0.5)
    for seed in range(20):
        painted = RandAnomalyEncoding(labels).set_random_state(seed)(image, anomaly, label)
        assert torch.equal(painted[anomaly == 0], image[anomaly == 0])
        assert painted.min() >= 0
    unchanged = RandAnomalyEncoding(labels)(image, torch.zeros_like(anomaly), label)
    assert torch.equal(unchanged, image)


def test_sign_is_random_a_fifth_of_the_time(labels):
    transform = RandAnomalyEncoding(labels)
    draws = []
    for seed in range(1000):
        transform.set_random_state(seed)
        transform.randomize()
        draws.append(transform._random_sign)
    assert 150 < sum(draw is not None for draw in draws) < 250
    assert 60 < sum(draw == 1.0 for draw in draws) < 140


def test_a_lesion_can_lose_the_texture_of_its_tissue(labels):
    image, anomaly, label = scene(0.8, 0.5)
    image = image + 0.2 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * (label > 0)
    anomaly = (anomaly > 0).float()
    inside = anomaly > 0

    def spread(texture: float) -> float:
        paint = RandAnomalyEncoding(labels, voxel_share=0.0, random_sign_prob=0.0, std=0.0, texture=(texture, texture))
        return float(paint.set_random_state(0)(image, anomaly, label)[inside].std())

    assert spread(1.0) == pytest.approx(float(image[inside].std()), rel=1e-4)
    assert spread(0.5) == pytest.approx(0.5 * float(image[inside].std()), rel=1e-4)
    assert spread(0.0) < 1e-5


def test_strength_makes_lesions_faint(labels):
    image, anomaly, label = scene(0.8, 0.5)

    def change(strength: float) -> torch.Tensor:
        paint = RandAnomalyEncoding(labels, strength=(strength, strength), random_sign_prob=0.0).set_random_state(5)
        return paint(image, anomaly, label) - image

    torch.testing.assert_close(change(0.1), 0.1 * change(1.0), atol=1e-6, rtol=1e-4)


def test_the_draw_varies_smoothly_over_the_image(labels):
    label = torch.full((1, 48, 48, 48), 2)
    label[:, :4] = 3
    image, anomaly = torch.full(label.shape, 10.0), torch.ones(label.shape)
    paint = RandAnomalyEncoding(labels, scale=6.0, voxel_share=0.0, random_sign_prob=0.0).set_random_state(1)
    draw = ((paint(image, anomaly, label) - image) / 10.0).flatten()
    draw = (draw - 0.5 * torch.sign(draw.mean())) / 0.5
    assert abs(float(draw.mean())) < 0.15 and float(draw.std()) == pytest.approx(1.0, abs=0.1)
    field = draw.reshape(48, 48, 48)
    assert float((field[1:] - field[:-1]).std()) < 0.3  # neighbours agree
    assert float((field[40:] - field[:8]).std()) > 0.8  # what is far apart does not


def test_a_cavity_is_filled_with_csf(labels):
    image, anomaly, label = scene(0.8, 0.5)
    label[:, 2:14, 2:14, 2:4], image[:, 2:14, 2:14, 2:4] = 24, 0.1
    anomaly = (anomaly > 0).float()
    painted = RandAnomalyEncoding(labels, cavity_prob=1.0).set_random_state(2)(image, anomaly, label)
    assert abs(float(painted[anomaly > 0].mean()) - 0.1) < 0.02
    assert torch.equal(painted[anomaly == 0], image[anomaly == 0])


def test_compartments_differ_and_are_nested(labels):
    axis = torch.arange(40.0) - 19.5
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)[None]
    label = torch.full(radius.shape, 2)
    label[:, :3] = 3
    image, anomaly = torch.full(label.shape, 10.0), (radius < 14).float()
    turned, draws = 0, []
    for seed in range(60):
        paint = RandAnomalyEncoding(labels, voxel_share=0.0, random_sign_prob=0.0, compartments=(3, 3))
        change = ((paint.set_random_state(seed)(image, anomaly, label) - image)[anomaly > 0] / 10.0).round(decimals=3)
        values, place = change.unique(), radius[anomaly > 0]
        assert 1 < len(values) <= 3
        rings = sorted((float(place[change == value].min()), float(place[change == value].max())) for value in values)
        assert rings[0][0] < 1  # the innermost is a core, and no ring begins before the one inside it ends
        assert all(outer[0] > inner[1] - 0.75 for inner, outer in pairwise(rings))
        turned += int((values > 0).any() and (values < 0).any())
        draws.append(float(change[0]))
    assert turned > 15  # a bright rim around a dark core, or the other way round
    assert len(set(draws)) > 55


def test_dictionary_form_gives_every_image_the_same_draw(labels):
    image, anomaly, label = scene(0.8, 0.5)
    data = {"image": image, "other": image.clone(), "anomaly": anomaly, "label": label}
    out = RandAnomalyEncodingd(["image", "other"], labels).set_random_state(3)(data)
    assert torch.equal(out["image"], out["other"]) and not torch.equal(out["image"], image)


def test_bad_input_is_named(labels):
    image, anomaly, label = scene(0.8, 0.5)
    with pytest.raises(InputError, match="share one grid"):
        RandAnomalyEncoding(labels)(image[:, :8], anomaly, label)
    with pytest.raises(InputError, match="no voxel of gray_matter"):
        RandAnomalyEncoding(labels)(image, anomaly, torch.where(label == 3, 0, label))
