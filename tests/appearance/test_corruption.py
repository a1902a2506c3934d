"""Statistics of the corruption, level by level, as generator.yaml configures them (Table B.1)."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.appearance import RandAcquisition, RandGamma, RandGridBiasField, ScaleToUnit, ScaleToWhiteMatter
from scripts.errors import InputError

LEVELS = {
    "mild": {"scale": (0.01, 0.02), "std": (0.01, 0.05), "noise": (0.01, 0.5), "low_field": 0.1, "anisotropic": 0.0},
    "medium": {"scale": (0.02, 0.03), "std": (0.05, 0.3), "noise": (0.5, 5.0), "low_field": 0.3, "anisotropic": 0.1},
    "severe": {"scale": (0.02, 0.04), "std": (0.1, 0.6), "noise": (5.0, 10.0), "low_field": 0.5, "anisotropic": 0.25},
}


@pytest.mark.parametrize("level", LEVELS)
def test_levels_of_the_config(generator, level):
    expected = LEVELS[level]
    _, bias, acquisition = (t.transform for t in generator(voxel_size=1.0).get_parsed_content(level).transforms)
    kinds, noise, fields = [], [], []
    image = torch.ones(1, 160, 160, 160)
    for seed in range(400):
        acquisition.set_random_state(seed)
        acquisition.randomize()
        coarse = acquisition.spacing > 1.2
        kinds.append({3: "low_field", 1: "anisotropic", 0: "native"}[int(coarse.sum())])
        noise.append(acquisition._std * 255)
        bias.set_random_state(seed)
        bias.randomize(image)
        fields.append((bias.log_field.std(), bias.log_field.shape[0]))
    for kind in ("low_field", "anisotropic"):
        assert abs(kinds.count(kind) / 400 - expected[kind]) < 0.07
    low, high = expected["noise"]
    assert low <= min(noise) and max(noise) <= high and abs(np.mean(noise) - (low + high) / 2) < 0.05 * high
    deviations, points = np.array(fields).T
    assert 0.5 * np.mean(expected["std"]) < deviations.mean() < 1.2 * np.mean(expected["std"])
    assert points.max() <= math.ceil(160 * expected["scale"][1]) and points.min() >= 2


def test_gamma_is_log_normal_and_spares_black_and_white():
    transform = RandGamma()
    values = []
    for seed in range(500):
        transform.set_random_state(seed)
        transform.randomize()
        values.append(math.log(transform.gamma))
    assert abs(np.std(values) - 0.1) < 0.01 and abs(np.mean(values)) < 0.02
    fixed = torch.tensor([0.0, 300 / 255])
    torch.testing.assert_close(transform(fixed, randomize=False), fixed)


def test_bias_field_is_smooth_and_multiplies():
    transform = RandGridBiasField((0.02, 0.04), (0.3, 0.3)).set_random_state(0)
    image = torch.rand(1, 64, 64, 64) + 0.1
    biased = transform(image)
    field = biased / image
    assert field.std() > 0.05
    assert max(float(field.diff(dim=axis).abs().max()) for axis in (1, 2, 3)) < 0.05
    torch.testing.assert_close(transform(2 * image, randomize=False), 2 * biased)


def test_native_acquisition_only_adds_noise_of_the_drawn_strength():
    transform = RandAcquisition(1.0, (0.02, 0.02), low_field_prob=0.0, anisotropic_prob=0.0).set_random_state(0)
    image = torch.full((1, 48, 48, 48), 0.5)
    noise = transform(image) - image
    assert abs(float(noise.std()) - 0.02) < 1e-3 and abs(float(noise.mean())) < 1e-3


def test_thick_slices_blur_along_their_axis_alone():
    transform = RandAcquisition(1.0, (0.0, 0.0), low_field_prob=0.0, anisotropic_prob=1.0)
    point = torch.zeros(1, 48, 48, 48)
    point[0, 24, 24, 24] = 1.0
    for seed in range(6):
        seen = transform.set_random_state(seed)(point)[0]
        axis = int(np.argmax(transform.spacing))
        assert 2.5 <= transform.spacing[axis] <= 8.5 and transform.thickness[axis] <= 6.0
        spread = [float((seen.sum(dim=[i for i in range(3) if i != a]) > 1e-4).sum()) for a in range(3)]
        assert spread[axis] > 5 and all(spread[a] == 1 for a in range(3) if a != axis)


def test_coarse_voxels_keep_the_mean():
    transform = RandAcquisition(1.0, (0.0, 0.0), low_field_prob=1.0, anisotropic_prob=0.0).set_random_state(2)
    inner = torch.nn.functional.avg_pool3d(
        torch.rand(1, 30, 30, 30, generator=torch.Generator().manual_seed(0)), 3, 1, 1
    )
    image = torch.nn.functional.pad(inner, (15,) * 6)
    seen = transform(image)
    assert abs(float(seen.mean() / image.mean()) - 1.0) < 0.02
    assert seen.std() < image.std()


def test_scale_to_unit_ignores_undershoot_and_a_hot_voxel():
    image = torch.rand(1, 20, 20, 20) * 100
    spoiled = image.clone()
    spoiled[0, 0, 0, 0], spoiled[0, 0, 0, 1] = 1e6, -50.0
    clean, robust = ScaleToUnit()(image), ScaleToUnit()(spoiled)
    assert robust.min() == 0 and robust.max() == 1
    torch.testing.assert_close(robust[0, 1:], clean[0, 1:], atol=0.01, rtol=0)


def test_white_matter_has_one_level_whatever_is_bright():
    generator = torch.Generator().manual_seed(0)
    tissue = torch.randint(0, 4, (1, 24, 24, 24), generator=generator)
    brain = torch.tensor([0.0, 30.0, 70.0, 100.0])[tissue] + 4 * torch.randn(tissue.shape, generator=generator)
    brain = brain.clamp(min=1.0) * (tissue > 0)
    bright = brain.clone()
    bright[0, :2, :6, :12] = 250.0  # vessels, or a lesion
    for image in (brain, 13.0 * brain, bright):
        scaled = ScaleToWhiteMatter()(image)
        assert abs(float(scaled[tissue == 3].median()) - 0.75) < 0.02 and float(scaled.max()) <= 1.0
    three = torch.tensor([0.0, 1.0, 2.0, 3.0])[tissue]
    assert float(ScaleToWhiteMatter()(three).max()) == pytest.approx(0.75)


def test_scale_to_unit_refuses_what_is_no_image():
    meta = {"filename_or_obj": "scan.nii"}
    for values, message in (
        (torch.full((1, 4, 4, 4), float("nan")), "scan.nii has NaN"),
        (torch.zeros(1, 4, 4, 4), "scan.nii is constant"),
        (torch.full((1, 4, 4, 4), 7.0), "scan.nii is constant"),
        (torch.full((1, 4, 4, 4), -7.0), "scan.nii is constant"),
    ):
        with pytest.raises(InputError, match=message):
            ScaleToUnit()(MetaTensor(values, meta=meta))
