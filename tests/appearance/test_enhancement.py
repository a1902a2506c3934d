import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import binary_erosion
from scripts.appearance import RandEnhancement, RandEnhancementd
from scripts.errors import InputError

WHITE, GRAY, VENTRICLE, OUTER = 2, 3, 4, 24
LEVELS = {0: 0.0, WHITE: 0.75, GRAY: 0.57, VENTRICLE: 0.22, OUTER: 0.22}


def head(size: int = 56):
    axis = torch.arange(float(size)) - (size - 1) / 2
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)[None]
    label = torch.zeros(radius.shape, dtype=torch.long)
    for limit, number in ((26, OUTER), (24, GRAY), (20, WHITE), (8, VENTRICLE)):
        label[radius < limit] = number
    image = torch.zeros(label.shape)
    for number, level in LEVELS.items():
        image[label == number] = level
    return image, label, radius


def test_vessels_are_thin_bright_and_near_the_surface(labels):
    image, label, radius = head()
    out = RandEnhancement(labels, plexus_share=(0.0, 0.0), reach=4.0).set_random_state(0)(image, label)
    rise = out - image
    assert float(rise.min()) == 0.0 and not rise[label == 0].any()
    assert not rise[(radius < 20) & (label > 0)].any()  # deep tissue and ventricles have none
    vessels = (rise > 0.3)[0].numpy()
    assert 50 < vessels.sum() < 0.1 * int((label > 0).sum())
    assert binary_erosion(vessels).sum() < 0.02 * vessels.sum()  # curves, no blobs
    assert float(out.max()) > 1.1 * 0.75 * 0.9


def test_plexus_fills_a_share_of_the_ventricles(labels):
    _, label, _ = head()
    ventricle = label == VENTRICLE
    for share in (0.05, 0.2):
        enhance = RandEnhancement(labels, plexus_share=(share, share)).set_random_state(1)
        enhance.randomize()
        bright = enhance.blood(label) > 0.5
        assert 0.3 * share < float(bright[ventricle].float().mean()) < 1.2 * share


def test_brightness_is_relative_to_white_matter(labels):
    image, label, _ = head()
    bright = RandEnhancement(labels, brightness=(2.0, 2.0)).set_random_state(2)
    assert float(bright(image, label).max()) == pytest.approx(1.5, rel=0.05)
    torch.testing.assert_close(
        bright.set_random_state(2)(10 * image, label), 10 * bright.set_random_state(2)(image, label)
    )


def test_one_draw_for_all_images_and_the_draw_repeats(labels):
    image, label, _ = head()
    data = {"scan": MetaTensor(image), "intact": MetaTensor(image), "label": label}
    enhance = RandEnhancementd(["scan", "intact"], labels)
    out = enhance.set_random_state(3)(data)
    assert torch.equal(out["scan"], out["intact"]) and isinstance(out["scan"], MetaTensor)
    assert torch.equal(out["scan"], enhance.set_random_state(3)(data)["scan"])
    assert not torch.equal(out["scan"], enhance.set_random_state(4)(data)["scan"])
    assert torch.equal(data["scan"], image)  # the input is left alone


def test_another_grid_is_named(labels):
    image, label, _ = head()
    with pytest.raises(InputError, match="share one grid"):
        RandEnhancement(labels)(image[:, :8], label)
