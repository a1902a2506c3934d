"""The mid-sagittal plane of turned brains, with and without a lesion."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, SpatialResample
from monai.transforms.utils import create_rotate
from scripts.config import from_config
from scripts.symmetry import EstimateMirrord, estimate_mirror, mid_plane_reflection, reflection, symmetry
from scripts.volumes import read_volume

TURNS = [(20.0, -20.0, 10.0), (-15.0, 18.0, -20.0)]  # degrees about x, y, z


def scan_of(label_map: MetaTensor, seed: int) -> tuple[MetaTensor, MetaTensor]:
    """An image of random contrast and its brain mask, with room for turning around it."""
    generator = torch.Generator().manual_seed(seed)
    contrast = torch.rand(int(label_map.max()) + 1, generator=generator)
    contrast[0] = 0.0
    labels = torch.nn.functional.pad(label_map.as_tensor().long(), (20,) * 6)
    affine = label_map.affine.double().clone()
    affine[:3, 3] -= affine[:3, :3] @ torch.full((3,), 20.0, dtype=torch.float64)
    noise = 0.02 * torch.randn(labels.shape, generator=generator) * (labels > 0)
    return MetaTensor(contrast[labels] + noise, affine=affine), MetaTensor((labels > 0).float(), affine=affine)


def turned(volume: MetaTensor, motion: np.ndarray) -> MetaTensor:
    moved = MetaTensor(volume.as_tensor(), affine=torch.as_tensor(motion) @ volume.affine)
    resample = SpatialResample(mode="bilinear", padding_mode="zeros")
    return resample(moved, dst_affine=volume.affine, spatial_size=volume.shape[1:])


def about(degrees, centre: np.ndarray) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = create_rotate(3, np.deg2rad(degrees))[:3, :3]
    motion[:3, 3] = centre - motion[:3, :3] @ centre
    return motion


def disagreement(found: np.ndarray, expected: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """Angle in degrees between two planes, and distance in mm at a point of one of them."""
    normals = [np.linalg.eigh(matrix[:3, :3])[1][:, 0] for matrix in (found, expected)]
    angle = np.rad2deg(np.arccos(min(1.0, abs(float(normals[0] @ normals[1])))))
    return float(angle), float(np.linalg.norm((found - expected)[:3] @ np.append(point, 1.0)) / 2.0)


def with_lesion(image: MetaTensor, brain: MetaTensor) -> MetaTensor:
    """A bright ball of 5 cm in one hemisphere."""
    voxels = brain.as_tensor()[0].nonzero()
    centre = voxels[voxels[:, 0] < voxels[:, 0].float().quantile(0.25)].float().mean(dim=0)
    axes = torch.meshgrid(*[torch.arange(n) for n in image.shape[1:]], indexing="ij")
    ball = sum((axis - c) ** 2 for axis, c in zip(axes, centre)) < 25.0**2
    lesion = ball & (brain.as_tensor()[0] > 0)
    assert lesion.sum() > 30_000
    return MetaTensor(torch.where(lesion, 1.3, image.as_tensor()), affine=image.affine)


@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_real_anatomy_turned_by_known_angles(number, shared_data):
    label_map = read_volume(shared_data / f"label_maps_brain/brain{number}_labels.nii.gz")
    image, brain = scan_of(label_map, number)
    middle = brain.as_tensor()[0].nonzero().double().mean(dim=0)
    centre = (brain.affine[:3, :3] @ middle + brain.affine[:3, 3]).numpy()
    upright = estimate_mirror(image, brain)
    for degrees in TURNS:
        motion = about(degrees, centre)
        turned_image, turned_brain = turned(image, motion), (turned(brain, motion) > 0.5).float()
        expected = motion @ upright @ np.linalg.inv(motion)
        for scan in (turned_image, with_lesion(turned_image, turned_brain)):
            angle, distance = disagreement(estimate_mirror(scan, turned_brain), expected, centre)
            assert angle < 1.0 and distance < 1.0, (degrees, angle, distance)


def test_a_symmetric_phantom_and_the_score(omega):
    # A ball with blobs in pairs across a plane that is turned by 10 degrees, and across no other.
    normal = np.array([np.cos(np.deg2rad(10.0)), np.sin(np.deg2rad(10.0)), 0.0])
    expected = reflection(normal, np.zeros(3))
    axes = [torch.arange(n, dtype=torch.float64) for n in omega.shape[1:]]
    world = [axis + float(omega.affine[i, 3]) for i, axis in enumerate(torch.meshgrid(*axes, indexing="ij"))]
    volume = omega.as_tensor()[0] * 0.3
    for centre in ((6.0, 8.0, 3.0), (5.0, -9.0, -4.0), (8.0, -2.0, 8.0)):
        for place in (np.array(centre), expected[:3, :3] @ np.array(centre)):
            volume = volume + torch.exp(-sum((w - c) ** 2 for w, c in zip(world, place)) / 12.0)
    brain = MetaTensor((omega.as_tensor() > 0).float(), affine=omega.affine)
    image = MetaTensor(volume[None].float() * brain.as_tensor(), affine=omega.affine)
    angle, distance = disagreement(estimate_mirror(image, brain), expected, np.zeros(3))
    assert angle < 1.0 and distance < 0.5
    off = reflection(np.array([1.0, 0.0, 0.0]), np.array([-2.0, 0.0, 0.0]))
    assert symmetry(image, brain, expected) > 0.95 > symmetry(image, brain, off)


def test_a_given_transform_is_kept(omega):
    given = np.diag([-1.0, 1.0, 1.0, 1.0])
    data = EstimateMirrord("image")({"image": omega, "brain": omega, "mirror_transform": given})
    assert data["mirror_transform"] is given


def test_a_tilted_label_map_gets_its_plane_when_training_data_are_prepared(shared_data):
    prepare = Compose(from_config("generator.yaml", "prepare", {}))
    data = prepare({"label": str(shared_data / "label_maps/training_seg_08.nii.gz")})
    image, brain = data["typical_t1"], data["label"]
    assert symmetry(image, brain, data["mirror_transform"]) > symmetry(image, brain, mid_plane_reflection(brain)) + 0.05
    assert "mirror_transform" not in EstimateMirrord("t1", allow_missing_keys=True)({"label": brain})
