import numpy as np
import pytest
import torch
from conftest import asymmetric_brain
from monai.data import MetaTensor
from monai.transforms import Flip, Orientation
from scripts.errors import InputError
from scripts.symmetry import Mirror, Mirrord, mid_plane_reflection

REFLECTION = np.diag([-1.0, 1.0, 1.0, 1.0])


def volume(shape=(12, 10, 8), centre=(0.0, 0.0, 0.0), seed=0) -> MetaTensor:
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, 3] = torch.tensor(centre) - (torch.tensor(shape).double() - 1) / 2
    return MetaTensor(torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed)), affine=affine)


def test_on_a_centred_grid_the_partner_is_the_flipped_array():
    image = volume()
    torch.testing.assert_close(Mirror()(image, REFLECTION).as_tensor(), image.as_tensor().flip(1), atol=1e-5, rtol=0)


def test_mirroring_twice_returns_the_image():
    image = volume()
    torch.testing.assert_close(Mirror()(Mirror()(image, REFLECTION), REFLECTION), image, atol=1e-4, rtol=0)


def test_the_pair_is_equivariant_to_a_flip_of_the_person():
    # The pair of the mirrored person is the mirrored pair.
    image = volume()
    person = {"image": image, "brain": torch.ones_like(image), "mirror_transform": REFLECTION}
    other = {**person, "image": MetaTensor(image.as_tensor().flip(1), affine=image.affine)}
    pair = Mirrord("image", "mirrored")
    one, two = pair(person), pair(other)
    torch.testing.assert_close(one["mirrored"].as_tensor().flip(1), two["mirrored"].as_tensor(), atol=1e-5, rtol=0)
    torch.testing.assert_close(one["image"].as_tensor(), two["mirrored"].as_tensor(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axcodes", ["LAS", "PIR", "SAL"])
def test_the_storage_order_does_not_matter(axcodes):
    image = volume()
    stored = Orientation(axcodes, labels=None)(image)
    back = Orientation("RAS", labels=None)(Mirror()(stored, REFLECTION))
    torch.testing.assert_close(back.as_tensor(), Mirror()(image, REFLECTION).as_tensor(), atol=1e-5, rtol=0)


def test_a_tilted_plane_is_followed():
    # A point at distance d from a plane tilted by 20 degrees is found at distance d on its other side.
    angle = np.deg2rad(20.0)
    normal = np.array([np.cos(angle), np.sin(angle), 0.0])
    tilted = np.eye(4)
    tilted[:3, :3] -= 2 * np.outer(normal, normal)
    image = volume((41, 41, 5))
    image[:] = 0.0
    point = np.round(8.0 * normal)
    image[0, int(20 + point[0]), int(20 + point[1]), 2] = 1.0
    mirrored = Mirror()(image, tilted)[0]
    found = (mirrored.nonzero().double() * mirrored[mirrored > 0][:, None]).sum(0) / mirrored.sum() - torch.tensor(
        [20.0, 20, 2]
    )
    np.testing.assert_allclose(found[:2], (tilted[:3, :3] @ point)[:2], atol=0.1)


def test_without_a_transform_the_plane_halves_the_brain():
    label, affine = asymmetric_brain()
    brain = MetaTensor(torch.tensor(label > 0)[None].float(), affine=torch.tensor(affine))
    reflection = mid_plane_reflection(brain)
    middle = affine[0, 3] + 10.5  # between voxels 10 and 11
    assert abs(reflection[0, 3] - 2 * middle) <= 1.0
    data = Mirrord("brain", "mirrored")({"brain": brain})
    assert (data["mirrored"] - brain).abs().mean() < 0.05
    assert data["mirror_transform"].shape == (4, 4)


def test_bad_transforms_are_refused():
    for bad in (np.eye(4), np.eye(3)):
        with pytest.raises(InputError, match="exchanges left and right"):
            Mirror()(volume(), bad)
    with pytest.raises(InputError, match="empty brain mask"):
        mid_plane_reflection(torch.zeros(1, 4, 4, 4))


def test_flip_helper_of_monai_keeps_the_world():
    image = volume()
    flipped = Flip(spatial_axis=0)(image)
    torch.testing.assert_close(
        Orientation("RAS", labels=None)(Mirror()(flipped, REFLECTION)).as_tensor(),
        Mirror()(image, REFLECTION).as_tensor(),
        atol=1e-5,
        rtol=0,
    )
