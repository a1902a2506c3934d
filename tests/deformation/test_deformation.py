import numpy as np
import torch
from conftest import asymmetric_brain
from monai.data import MetaTensor
from monai.transforms import Flip
from scripts.deformation import RandDeformation, RandDeformationd, RandLateralFlip, RandLateralFlipd

STILL = {"rotation": 0.0, "shear": 0.0, "scaling": 0.0, "nonlinear_std": (0.0, 0.0)}


def subject():
    label, affine = asymmetric_brain()
    return {
        "label": MetaTensor(torch.tensor(label)[None].long(), affine=torch.tensor(affine)),
        "t1": MetaTensor(torch.tensor(label)[None].float(), affine=torch.tensor(affine)),
    }


def test_no_deformation_is_a_centred_crop_or_pad():
    data = subject()
    out = RandDeformation((28, 16, 18), **STILL).set_random_state(0)(data["t1"])
    expected = torch.zeros(1, 28, 16, 18)
    expected[:, 2:26] = data["t1"].as_tensor()[:, :, 2:18]
    torch.testing.assert_close(out.as_tensor(), expected, atol=1e-4, rtol=0)


def test_world_coordinates_of_the_affine_part_stay_true():
    axis = torch.arange(20.0)
    ramps = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    affine = torch.tensor([[0.0, -2.0, 0.0, 3.0], [1.5, 0.0, 0.0, -4.0], [0.0, 0.0, 1.0, 5.0], [0, 0, 0, 1]]).double()
    world = torch.einsum("ij,jxyz->ixyz", affine[:3, :3], ramps.double()) + affine[:3, 3, None, None, None]
    transform = RandDeformation((10, 10, 10), nonlinear_std=(0.0, 0.0), translation=1.0).set_random_state(4)
    seen = transform(MetaTensor(world.float(), affine=affine))
    index = torch.stack(torch.meshgrid(*[torch.arange(10.0).double()] * 3, indexing="ij"))
    claimed = torch.einsum("ij,jxyz->ixyz", seen.affine[:3, :3], index) + seen.affine[:3, 3, None, None, None]
    torch.testing.assert_close(seen.as_tensor().double(), claimed, atol=1e-3, rtol=0)


def test_one_draw_for_label_and_image_and_integers_stay_labels():
    data = subject()
    out = RandDeformationd(["label", "t1"], mode=["nearest", "nearest"], spatial_size=(24, 20, 18)).set_random_state(1)(
        data
    )
    assert out["label"].dtype == torch.int64
    torch.testing.assert_close(out["label"].float().as_tensor(), out["t1"].as_tensor())
    assert set(out["label"].unique().tolist()) <= {0, 2, 3, 41, 42}
    assert not torch.equal(out["label"].as_tensor(), data["label"].as_tensor())
    assert torch.equal(data["t1"].affine, subject()["t1"].affine)  # the input is left alone


def test_strength_follows_the_paper_table():
    draws = []
    for seed in range(200):
        transform = RandDeformation((40, 40, 40)).set_random_state(seed)
        transform.randomize()
        draws.append(
            (np.linalg.det(transform._affine[:3, :3]), transform._displacement.std(), transform._displacement.shape[1])
        )
    determinant, displacement, points = np.array(draws).T
    assert 0.5 < determinant.min() < 0.8 and 1.25 < determinant.max() < 1.75  # (1 +- 0.2)^3 in each axis
    assert displacement.max() < 6.5 and 1.0 < displacement.mean() < 3.0  # std ~ U(0, 4)
    assert set(points) <= {2.0, 3.0}  # 0.03-0.06 of 40


def test_flip_mirrors_positions_and_swaps_labels(labels):
    data = subject()
    out = RandLateralFlipd(["label", "t1"], labels, prob=1.0)(data)
    mirrored = Flip(spatial_axis=0)(data["t1"])
    torch.testing.assert_close(out["t1"].as_tensor(), mirrored.as_tensor())
    flipped = out["label"].as_tensor()[0]
    left, right = ((flipped == a) | (flipped == b) for a, b in ((2, 3), (41, 42)))
    assert left.sum() == (data["t1"] > 40).sum() and left.nonzero()[:, 0].max() < right.nonzero()[:, 0].min()
    again = RandLateralFlip(labels, prob=1.0)(
        RandLateralFlip(labels, prob=1.0)(data["label"], is_label=True), is_label=True
    )
    assert torch.equal(again.as_tensor(), data["label"].as_tensor())


def test_flip_happens_half_of_the_time(labels):
    data = subject()
    transform = RandLateralFlipd(["label", "t1"], labels).set_random_state(0)
    flips = sum(not torch.equal(transform(data)["t1"].as_tensor(), data["t1"].as_tensor()) for _ in range(200))
    assert 75 < flips < 125
