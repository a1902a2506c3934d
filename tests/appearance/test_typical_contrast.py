"""The typical contrast: tissues go where they should, their order stays, and what is unknown decides nothing."""

import pytest
import torch
from scripts.appearance import TypicalContrast, TypicalContrastd
from scripts.errors import InputError

VALUES = {"csf": 0.22, "gray_matter": 0.57, "deep_gray_matter": 0.66, "white_matter": 0.75}
MEDIANS = {24: 0.3, 3: 0.5, 10: 0.9, 2: 0.95}  # of CSF, cortex, thalamus and white matter in another sequence


@pytest.fixture
def person(labels):
    """A T1w whose tissues have noise around their medians, and its label map."""
    random = torch.Generator().manual_seed(0)
    label = torch.tensor(list(MEDIANS))[torch.randint(4, (1, 24, 24, 24), generator=random)]
    label[:, 0] = 0
    t1 = sum((label == number) * value for number, value in MEDIANS.items())
    t1 = (t1 + 0.01 * torch.randn(t1.shape, generator=random) * (label > 0)).float().clamp(0.0, 1.0)
    return t1, label


def test_the_medians_of_all_tissues_are_the_typical_ones(labels, person):
    t1, label = person
    typical = TypicalContrast(labels, VALUES)(t1, label)
    for tissue, value in VALUES.items():
        assert typical[labels.mask(label, tissue)].median() == pytest.approx(value, abs=0.003)
    assert not typical[label == 0].any() and typical.max() <= 1.0
    # The curve rises: no two voxels change their order.
    order = t1.flatten().argsort()
    assert (typical.flatten()[order].diff() >= -1e-6).all()


def test_a_typical_scan_stays_and_two_sequences_meet(labels, person):
    t1, label = person
    transform = TypicalContrast(labels, VALUES)
    typical = transform(t1, label)
    torch.testing.assert_close(transform(typical, label), typical, atol=0.01, rtol=0.0)
    torch.testing.assert_close(transform(t1**1.5, label), typical, atol=0.02, rtol=0.0)


def test_a_tissue_that_is_missing_or_out_of_order_is_passed_over(labels, person):
    t1, label = person
    without = torch.where(label == 10, 0, label)
    before, _ = TypicalContrast(labels, VALUES).knots(t1, without)
    assert len(before) == 5  # 0, three tissues, 1
    darker = torch.where(label == 10, 0.4, t1)  # deep gray matter darker than cortex cannot be sent above it
    typical = TypicalContrast(labels, VALUES)(darker, label)
    assert typical[label == 2].median() == pytest.approx(0.75, abs=0.003)
    assert typical[label == 3].median() == pytest.approx(0.57, abs=0.003)
    with pytest.raises(InputError, match="must rise"):
        TypicalContrast(labels, {"csf": 0.5, "white_matter": 0.2})


def test_without_a_label_map_the_contrast_stays(labels, person):
    t1, label = person
    transform = TypicalContrastd("healthy", labels=labels, values=VALUES)
    assert transform({"healthy": t1})["healthy"] is t1
    assert not torch.equal(transform({"healthy": t1, "label": label})["healthy"], t1)
