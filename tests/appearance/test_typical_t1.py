"""The T1w of subjects that have a label map only."""

import numpy as np
import pytest
import torch
from conftest import ball
from monai.data import MetaTensor
from scripts.appearance import TypicalT1w, TypicalT1wd
from scripts.errors import InputError
from scripts.labels import TrimLabelsd

INTENSITIES = {2: 1.0, 3: 0.75, 24: 0.3}


@pytest.fixture
def label_map():
    """White matter in gray matter in CSF; the right half has the right labels."""
    labels = torch.zeros(48, 48, 48, dtype=torch.int64)
    for radius, label in ((22.0, 24), (18.0, 3), (12.0, 2)):
        labels[ball(48, radius)] = label
    right = torch.arange(48)[:, None, None] >= 24
    labels = torch.where(right & (labels == 2), 41, torch.where(right & (labels == 3), 42, labels))
    return MetaTensor(labels[None], affine=torch.eye(4))


def test_structures_have_their_intensities(label_map, labels):
    typical = TypicalT1w(labels, INTENSITIES, white_matter=0.8, partial_volume=0.6, texture=0.04)
    image = typical(label_map)
    for label, value in {2: 0.8, 41: 0.8, 3: 0.6, 42: 0.6, 24: 0.24}.items():
        inside = image[label_map == label]
        assert float(inside.mean()) == pytest.approx(value, abs=0.02), label
    core = image[0][ball(48, 9.0)]
    assert 0.02 < float(core.std()) / 0.8 < 0.06
    assert float(image[label_map == 0].max()) == 0.0
    torch.testing.assert_close(typical(label_map), image)  # a target does not change from epoch to epoch


def test_borders_mix_and_the_total_stays(label_map, labels):
    sharp, mixed = (TypicalT1w(labels, INTENSITIES, partial_volume=w, texture=0.0)(label_map) for w in (0.01, 1.0))
    assert len(torch.unique(sharp)) == 4 < len(torch.unique(mixed))
    inner = ball(48, 16.0)[None]  # away from the background, where nothing is lost
    assert float(mixed[inner].mean()) == pytest.approx(float(sharp[inner].mean()), rel=0.01)


def test_a_real_t1_is_kept_and_unknown_structures_are_named(label_map, labels):
    real = torch.rand(1, 48, 48, 48)
    give = TypicalT1wd("label", labels, intensities=INTENSITIES)
    assert "typical_t1" not in give({"label": label_map, "t1": real}) and "typical_t1" in give({"label": label_map})
    with pytest.raises(InputError, match=r"labels \[2, 41\]"):
        TypicalT1w(labels, {3: 0.75, 24: 0.3})(label_map)


def test_csf_is_trimmed_to_a_rim_but_kept_in_fissures():
    labels = torch.zeros(60, 60, 60)
    labels[ball(60, 28.0)] = 24
    labels[ball(60, 15.0)] = 2
    labels[29:31, 30:] = torch.where(labels[29:31, 30:] == 2, 24.0, labels[29:31, 30:])  # a fissure 2 mm wide
    volume = MetaTensor(labels[None], affine=torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0])))
    trimmed = TrimLabelsd("label", outer=[24], radius=6.0)({"label": volume})["label"]
    np.testing.assert_array_equal(np.asarray(trimmed == 2), np.asarray(volume == 2))
    rim = np.asarray(ball(60, 16.0))
    assert (np.asarray(trimmed[0])[rim] > 0).all()
    assert not (np.asarray(trimmed[0])[~np.asarray(ball(60, 18.5))] > 0).any()
    wide = TrimLabelsd("label", outer=[24], radius=500.0)({"label": volume})["label"]
    np.testing.assert_array_equal(np.asarray(wide), np.asarray(volume))
