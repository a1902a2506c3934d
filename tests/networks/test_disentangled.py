"""The parts of disentangled anatomy where the answer is known."""

import numpy as np
import pytest
import torch
from conftest import TINY_ANATOMY
from scripts.config import parse
from scripts.networks import AnatomyEncoder, Combiner, ModalityVector, canny_edges, straight_through


def test_one_hot_forward_softmax_backward():
    logits = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    hard, soft = straight_through(logits, temperature=0.5)
    expected = torch.nn.functional.one_hot(logits.argmax(dim=1), 4).movedim(-1, 1).float()
    torch.testing.assert_close(hard.detach(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(soft, torch.softmax(2.0 * logits, dim=1))
    (found,) = torch.autograd.grad((hard * weights).sum(), logits, retain_graph=True)
    (of_softmax,) = torch.autograd.grad((soft * weights).sum(), logits)
    torch.testing.assert_close(found, of_softmax)
    assert float(found.abs().max()) > 0.0


def test_edges_of_a_cylinder_are_its_circle():
    x, y = np.meshgrid(np.arange(40), np.arange(40), indexing="ij")
    distance = np.hypot(x - 20.0, y - 20.0)
    level = torch.from_numpy(np.where(distance <= 10.0, 0.72, 0.48)).float()
    volume = level[None, None, :, :, None].repeat(1, 1, 1, 1, 3)
    edges = canny_edges(volume, sigma=1.0, low=0.1, high=0.2)
    assert edges.shape == volume.shape and set(edges.unique().tolist()) == {0.0, 1.0}
    for z in range(3):
        radius = distance[edges[0, 0, :, :, z].numpy() > 0]
        assert abs(radius - 10.0).max() <= 1.5
        angles = np.arctan2((y - 20)[edges[0, 0, :, :, z].numpy() > 0], (x - 20)[edges[0, 0, :, :, z].numpy() > 0])
        assert np.diff(np.sort(angles)).max() < 0.3  # the circle is closed
    assert float(canny_edges(torch.full_like(volume, 0.5), 1.0, 0.1, 0.2).max()) == 0.0


def test_a_contrast_changes_shades_and_moves_nothing():
    torch.manual_seed(0)
    combiner = Combiner(torch.nn.Conv3d(5, 7, 1), shades=2, tissues=3)
    torch.nn.init.normal_(combiner.palette.weight)
    code = torch.randn(1, 5, 2, 1, 1).expand(1, 5, 2, 5, 6)  # two tissues
    drawn = [combiner(code, vector).detach() for vector in torch.rand(3, 1, 6)]
    for scan in drawn:
        assert float(scan.std(dim=(3, 4)).max()) < 1e-6  # even within each tissue
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)


def test_a_code_holds_the_tissue_map_and_what_lies_around():
    torch.manual_seed(0)
    encoder, tissues = AnatomyEncoder(4, [3, 2]), torch.rand(1, 4, 5, 5, 5)
    code = encoder(tissues).detach()
    assert torch.equal(code[:, :4], tissues)
    other = tissues.clone()
    other[..., 2, 2, 3] += 1.0  # beside the voxel in the middle
    moved = (encoder(other).detach() - code)[0, :, 2, 2, 2]
    assert float(moved[:4].abs().max()) == 0.0 and float(moved[4:].abs().min()) > 0.0


@pytest.fixture
def tissues():
    layers = torch.zeros(1, 4, 8, 8, 8)
    for number in range(4):
        layers[:, number, 2 * number : 2 * number + 2] = 1.0
    return layers


def test_shades_begin_as_the_tissues_of_the_scan(tissues):
    scan = torch.einsum("btxyz,t->bxyz", tissues, torch.tensor([0.0, 0.9, 0.3, 0.5]))[:, None]
    vector = ModalityVector()(scan, tissues)
    torch.testing.assert_close(vector, torch.tensor([[0.9, 0.3, 0.5, 0.0, 0.0, 0.0]]), atol=1.1e-3, rtol=0)
    # A trunk that says nothing, and a combiner that trusts the map: each tissue has the mean of its shades, which is its own.
    trunk = torch.nn.Conv3d(4, 13, 1)
    torch.nn.init.zeros_(trunk.weight)
    torch.nn.init.zeros_(trunk.bias)
    drawn = Combiner(trunk, shades=4, tissues=3, trust=30.0)(tissues, vector)
    torch.testing.assert_close(drawn, scan, atol=1e-5, rtol=0)


def test_shades_of_a_tissue_spread_about_its_mean():
    combiner = Combiner(torch.nn.Identity(), shades=3, tissues=1, spread=2.0)
    torch.testing.assert_close(combiner.palette(torch.tensor([[0.5, 0.1]])), torch.tensor([[0.3, 0.5, 0.7]]))


def test_a_modality_vector_is_what_tissues_look_like_anywhere(tissues):
    scan = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    vector = ModalityVector()(scan, tissues)
    second = scan[0, 0, 4:6]
    torch.testing.assert_close(vector[0, [1, 4]], torch.stack([second.mean(), second.std(correction=0)]))
    torch.testing.assert_close(ModalityVector()(scan.roll(3, dims=2), tissues.roll(3, dims=2)), vector)
    learned = tissues.clone().requires_grad_(True)
    assert not ModalityVector()(scan, learned).requires_grad  # it teaches the tissues nothing


def test_a_modality_vector_is_measured_where_a_tissue_is_deep_and_sure():
    at = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    distance = (at - 11.5).square().sum(dim=0).sqrt()
    csf = (distance > 8) | (distance < 4)  # a shell and a core
    number = torch.where(distance > 10, 0, torch.where(csf, 1, 2))
    tissues = torch.nn.functional.one_hot(number, 4).movedim(-1, 0)[None].float()
    scan = torch.where(distance < 4, 0.9, torch.where(number == 1, 0.2, 0.5))[None, None] * (number > 0)
    doubted = tissues.clone()  # half of the core, and bright, might be gray matter as well
    doubted[:, 1:3, 12:, 11:13, 11:13] = 0.5
    scan[..., 12:14, 11:13, 11:13] = 0.0
    assert float(ModalityVector()(scan, tissues)[0, 0]) < 0.4
    vector = ModalityVector(depth=3, sure=0.9)(scan, doubted)[0]
    torch.testing.assert_close(vector[[0, 1]], torch.tensor([0.9, 0.5]))
    # Of a tissue that is never sure or deep, all counts.
    whole = ModalityVector(depth=3, sure=0.9)(scan, 0.8 * tissues)
    torch.testing.assert_close(whole, ModalityVector()(scan, 0.8 * tissues))


def test_only_edges_of_the_scan_and_its_vector_reach_what_is_drawn():
    parser = parse(["guest.yaml", "methods/disentangled.yaml"], TINY_ANATOMY)
    network = parser.get_parsed_content("network_def").eval()
    random = torch.Generator().manual_seed(0)
    scan = torch.rand(1, 1, 32, 32, 32, generator=random)
    drawn = network(scan).detach()
    assert 0.0 <= float(drawn.min()) and float(drawn.max()) <= 1.0
    # The same edges and the same vector: the scan itself does not count.
    hard, soft = network.anatomy(scan)
    edges = network.edges(hard)
    healthy, restored = straight_through(network.restorer(edges))
    vector, code = network.modality(scan, torch.minimum(soft, restored)), network.encoder(healthy)
    torch.testing.assert_close(network.combiner(code, vector).clamp(0.0, 1.0), drawn)
    assert not edges.requires_grad
    network.reuse_modality = False
    network.usual_vector.copy_(torch.full((6,), 0.4))
    usual = network.combiner(code, torch.full((1, 6), 0.4)).clamp(0.0, 1.0)
    torch.testing.assert_close(network(scan), usual)
    network.source = "levels"
    assert set(network.edges(hard).unique().tolist()) <= set(network.levels.tolist())
