import numpy as np
import pytest
import torch
from monai.networks.blocks import Warp
from scipy.integrate import solve_ivp
from scripts.deformation import RandExpansion, RandExpansiond, RandSulcid, RandVentriclesd, expansion_field

WHITE, GRAY, VENTRICLES, OUTER = 2, 3, (4, 43), 24


def from_middle(size: int) -> torch.Tensor:
    axis = torch.arange(float(size)) - (size - 1) / 2
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))


def head(size: int = 56) -> torch.Tensor:
    """A round brain with a rim of CSF and two equal ventricles: 4 on the left (low x), 43 on the right."""
    place = from_middle(size)
    radius = place.norm(dim=0)
    label = torch.where(radius < 24, OUTER, 0) + torch.where(radius < 22, WHITE - OUTER, 0)
    for side, number in zip((-1, 1), VENTRICLES):
        label[((place[0] - 6 * side) ** 2 + place[1] ** 2 / 4 + place[2] ** 2) < 9] = number
    return label[None]


@pytest.mark.parametrize("amount", [3.0, -2.0])
def test_a_plane_wall_moves_as_its_velocity_says_and_nothing_folds(amount):
    scale = 3.0
    region = torch.zeros(1, 64, 40, 40)
    region[:, 20:44] = 1
    field = expansion_field(region, amount, scale)
    grown = Warp("bilinear", "zeros")(region[None], field)[0, 0, :, 20, 20]
    # A blurred step has a Gaussian slope: a wall at the distance d from where it was moves with amount x exp(-d^2 / 2 scale^2).
    expected = solve_ivp(lambda t, d: amount * np.exp(-0.5 * (d / scale) ** 2), (0, 1), [0.0], rtol=1e-8).y[0, -1]
    assert (float(grown.sum()) - 24) / 2 == pytest.approx(expected, abs=0.1)
    slopes = torch.stack([torch.stack(torch.gradient(part)) for part in field[0]]).permute(2, 3, 4, 0, 1)
    assert float(torch.linalg.det(torch.eye(3) + slopes)[:, 8:-8, 8:-8].min()) > 0.2
    assert float(field[0, :, :6, 20, 20].abs().max()) < 0.01  # far away nothing moves


def test_what_grows_shrinks_back():
    region = (from_middle(48).norm(dim=0) < 8).float()[None]
    smooth = torch.sin(from_middle(48) / 4).sum(dim=0)[None, None]
    warp = Warp("bilinear", "zeros")
    # The same velocity with the other sign is the inverse deformation.
    there = warp(smooth, expansion_field(region, 3.0, 4.0))
    back = warp(there, expansion_field(region, -3.0, 4.0))
    inner = (slice(None), slice(None), *[slice(6, -6)] * 3)
    assert float((there - smooth)[inner].abs().max()) > 0.4
    assert float((back - smooth)[inner].abs().max()) < 0.08


def test_an_empty_region_moves_nothing():
    assert not expansion_field(torch.zeros(1, 12, 12, 12), 4.0, 3.0).any()


def test_ventricles_widen_and_the_head_stays(labels):
    label = head()
    data = {"label": label, "t1": label.float()}
    settings = {"depth": 8, "scale": 4.0, "mode": ("nearest", "nearest")}
    wide = RandVentriclesd(["label", "t1"], labels, amount=(3.0, 3.0), **settings).set_random_state(0)(data)
    ventricles = [(volume[:, :] == number).sum().item() for volume in (label, wide["label"]) for number in VENTRICLES]
    assert min(ventricles[2:]) > 1.7 * max(ventricles[:2]) and ventricles[2] == pytest.approx(ventricles[3], rel=0.05)
    assert torch.equal(wide["label"] > 0, label > 0) and torch.equal(wide["label"] == OUTER, label == OUTER)
    assert torch.equal(wide["label"].float(), wide["t1"]) and wide["label"].dtype == label.dtype
    narrow = RandVentriclesd(["label", "t1"], labels, amount=(-1.5, -1.5), **settings).set_random_state(0)(data)
    assert (narrow["label"] == VENTRICLES[0]).sum() < 0.75 * ventricles[0]


def test_ventricles_differ_between_sides(labels):
    widen = RandVentriclesd("label", labels, depth=8, amount=(3.0, 3.0), scale=4.0, asymmetry=0.6, mode="nearest")
    excess = []
    for seed in range(12):
        label = widen.set_random_state(seed)({"label": head()})["label"]
        left, right = ((label == number).sum().item() for number in VENTRICLES)
        excess.append((left - right) / (left + right))
    assert min(excess) < -0.1 and max(excess) > 0.1


def test_sulci_widen_on_one_side_and_ventricles_stay(labels):
    label, sides = head(), []
    place = from_middle(label.shape[-1])
    sheet = (place[1].abs() < 1) & (place[0].abs() > 12) & (label[0] > 0)  # a sulcus on each side
    label[0][sheet] = OUTER
    widen = RandSulcid("label", labels, depth=(2, 12), reach=(5.0, 6.0), amount=(3.0, 3.0), scale=1.5, mode="nearest")
    for seed in range(10):
        wide = widen.set_random_state(seed)({"label": label})["label"]
        for number in VENTRICLES:
            assert (wide == number).sum().item() == pytest.approx((label == number).sum().item(), rel=0.03)
        more = [
            ((wide == OUTER) & half).sum().item() - ((label == OUTER) & half).sum().item()
            for half in (place[0] < 0, place[0] > 0)
        ]
        assert min(map(abs, more)) < 0.1 * max(map(abs, more)) and max(more) > 20
        sides.append(more[0] > more[1])
    assert 0 < sum(sides) < 10


def test_a_cistern_widens_on_both_sides_and_thin_sulci_stay(labels):
    label = head()
    place = from_middle(label.shape[-1])
    sheet = (place[1].abs() < 1) & (place[0].abs() > 12) & (label[0] > 0)  # a thin sulcus on each side
    cistern = (place - torch.tensor([0.0, -17.0, 0.0])[:, None, None, None]).norm(dim=0) < 4
    label[0][sheet | cistern] = OUTER
    settings = {"depth": (3, 14), "reach": (3.0, 4.0), "amount": (3.0, 3.0), "scale": 2.0, "mode": "nearest"}
    widen = RandSulcid("label", labels, one_sided=False, crowding=4.0, **settings)
    at_cistern = 0
    for seed in range(10):
        more = (widen.set_random_state(seed)({"label": label})["label"] == OUTER)[0] & (label[0] != OUTER)
        near = more & (place[1] < -8)
        if near.sum() > 0.8 * more.sum():
            at_cistern += 1
            left, right = ((near & half).sum().item() for half in (place[0] < 0, place[0] > 0))
            assert left > 20 and left == pytest.approx(right, rel=0.5)
    assert at_cistern >= 6  # thin sulci have several times as many voxels


def test_outer_csf_is_no_ventricle(labels):
    label = head()
    label[torch.isin(label, torch.tensor(VENTRICLES))] = WHITE
    widen = RandVentriclesd("label", labels, depth=8, amount=(3.0, 3.0), scale=4.0, mode="nearest").set_random_state(0)
    assert torch.equal(widen({"label": label})["label"], label)


def test_a_lesion_pushes_the_tissue_in_scan_and_target_alike():
    place = from_middle(48)
    lesion = ((place - torch.tensor([-10.0, 0.0, 0.0])[:, None, None, None]).norm(dim=0) < 5).float()[None]
    sheet = torch.exp(-0.5 * (place[0] / 1.5) ** 2)[None]  # the midline
    push = RandExpansiond(["scan", "healthy", "anomaly"], "anomaly", amount=(3.0, 3.0), scale=4.0).set_random_state(0)
    out = push({"scan": sheet, "healthy": sheet.clone(), "anomaly": lesion})
    assert torch.equal(out["scan"], out["healthy"]) and float(out["anomaly"].sum()) > 2 * float(lesion.sum())

    def position(volume, y, z):
        row = volume[0, :, y, z]
        return float((row * torch.arange(48.0)).sum() / row.sum())

    assert position(out["scan"], 24, 24) - position(sheet, 24, 24) > 0.5  # pushed away, to high x
    assert abs(position(out["scan"], 2, 2) - position(sheet, 2, 2)) < 0.2


def test_draws_repeat_and_stay_within_the_range():
    region = (from_middle(24).norm(dim=0) < 4).float()[None]
    image = torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    grow = RandExpansion((1.0, 2.0), scale=2.0, prob=0.5)
    outs = [grow.set_random_state(seed)(image, region) for seed in range(40)]
    assert torch.equal(outs[3], grow.set_random_state(3)(image, region))
    assert 10 < sum(torch.equal(out, image) for out in outs) < 30
    largest = []
    for seed in range(20):
        grow.set_random_state(seed).randomize()
        largest.append(float(grow.field(region).norm(dim=1).max()))
    assert 0.9 < min(largest) < 1.3 and 1.6 < max(largest) < 2.1 and len(np.unique(largest)) == 20
