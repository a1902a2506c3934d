"""SimpleSliceNet's features and flow, where the answer is known."""

import math

import numpy as np
import pytest
import torch
from scripts.errors import InputError
from scripts.networks import (
    ConditionalFlow,
    EncoderDecoder,
    FeatureExtractor,
    LocalFeatures,
    SliceFeatures,
    position_codes,
)
from scripts.slices import AxialSlices


@pytest.fixture
def random():
    np.random.seed(0)  # FrEIA draws its rotations from SciPy, SciPy from NumPy
    return torch.Generator().manual_seed(0)


def test_the_flow_is_invertible_and_knows_its_determinant(random):
    torch.manual_seed(0)
    flow = ConditionalFlow(size=6, condition=4, blocks=3).double()
    vectors = 3.0 * torch.randn(50, 6, generator=random).double() + 1.0
    codes = torch.randn(50, 4, generator=random).double()
    flow(vectors, codes)  # the first batch tells the scale
    normal, log_determinant = flow(vectors, codes)
    back, _ = flow.flow(normal, [codes], rev=True)
    torch.testing.assert_close(back, vectors, atol=1e-5, rtol=1e-5)  # the rotations are of single precision
    for vector, code, expected in zip(vectors[:3], codes[:3], log_determinant[:3]):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow(v[None], code[None])[0][0], vector)  # noqa: B023
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], expected, atol=1e-5, rtol=1e-5)
    # The code counts.
    assert not torch.allclose(flow(vectors, -codes)[0], normal)


def test_the_likelihood_of_a_gaussian_is_that_of_a_gaussian(random):
    flow = ConditionalFlow(size=3, condition=2, blocks=0)
    vectors = torch.randn(500, 3, generator=random) * torch.tensor([0.5, 2.0, 5.0]) + torch.tensor([1.0, -3.0, 0.0])
    found = flow.log_likelihood(vectors, torch.zeros(500, 2))
    normal = torch.distributions.Normal(vectors.mean(dim=0), vectors.std(dim=0))
    torch.testing.assert_close(found, normal.log_prob(vectors).sum(dim=1) / 3, rtol=1e-4, atol=1e-4)


def test_a_flow_that_was_trained_knows_its_gaussian(random):
    """A correlated Gaussian whose mean is the code: after a short training the likelihood is nearly the true one."""
    torch.manual_seed(0)
    flow = ConditionalFlow(size=2, condition=2, blocks=4)
    mix = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(800):
        codes = torch.randn(512, 2, generator=random)
        vectors = torch.randn(512, 2, generator=random) @ mix.T + codes
        optimizer.zero_grad()
        (-flow.log_likelihood(vectors, codes).mean()).backward()
        optimizer.step()
    codes = torch.randn(2000, 2, generator=random)
    vectors = torch.randn(2000, 2, generator=random) @ mix.T + codes
    true = torch.distributions.MultivariateNormal(codes, mix @ mix.T).log_prob(vectors) / 2
    with torch.no_grad():
        found = flow.log_likelihood(vectors, codes)
    assert float((true - found).mean()) < 0.05  # the divergence of both, which is never negative
    assert float(torch.corrcoef(torch.stack([true, found]))[0, 1]) > 0.95


def test_codes_of_places_differ_and_have_one_length():
    codes = position_codes((6, 7), 16).reshape(42, 16)
    torch.testing.assert_close(codes.square().sum(dim=1), torch.full((42,), 8.0))  # a sine and a cosine of each angle
    assert float(torch.cdist(codes, codes).fill_diagonal_(9.0).min()) > 0.1
    with_depth = position_codes((3, 4, 5), 12)
    assert with_depth.shape == (3, 4, 5, 12) and not torch.allclose(with_depth[0, 0, 0], with_depth[0, 0, 4])


def test_neighbouring_slices_are_averaged_and_come_back_to_their_places(random):
    local = LocalFeatures(FeatureExtractor((4, 10)), size=24)
    features = SliceFeatures(local, AxialSlices((48, 48)), depth=3)
    scan, brain = torch.rand(1, 48, 48, 11, generator=random), torch.zeros(1, 48, 48, 11)
    brain[..., 2:9] = 1.0  # 7 slices: groups of 3, 3 and 1
    found, share, index = features(scan, brain)
    assert found.shape == (24, 12, 12, 3) and index.tolist() == list(range(2, 9)) and float(share.min()) == 1.0
    alone, _, _ = SliceFeatures(local, AxialSlices((48, 48)), depth=1)(scan, brain)
    torch.testing.assert_close(found[..., 0], alone[..., :3].mean(dim=-1))
    torch.testing.assert_close(found[..., 2], alone[..., 6])
    shuffled = scan.clone()
    shuffled[..., 2:5] = scan[..., [4, 2, 3]]  # in one group the order does not count ...
    torch.testing.assert_close(features(shuffled, brain)[0], found)
    shuffled[..., 2], shuffled[..., 8] = scan[..., 8], scan[..., 2]  # ... from one to the other it does
    assert not torch.allclose(features(shuffled, brain)[0], found, atol=1e-2)
    volume = features.restore(torch.tensor([1.0, 2.0, 3.0]).expand(1, 12, 12, 3), index, (48, 48, 11))
    assert volume.shape == (1, 48, 48, 11) and float(volume[..., :2].abs().max()) == 0.0
    torch.testing.assert_close(volume[0, 5, 5, 2:9], torch.tensor([1.0, 1.0, 4 / 3, 5 / 3, 2.0, 7 / 3, 8 / 3]))


def test_tuning_reaches_the_features_through_the_last_block(random):
    torch.manual_seed(0)
    extractor = FeatureExtractor((2, 4), scale=1.0)
    taken = extractor.with_blocks((2,))
    tuned = EncoderDecoder(extractor).train()
    image = torch.rand(4, 1, 64, 64, generator=random)
    distance = tuned(image)
    assert distance.shape == (4,) and 0.0 <= float(distance.min()) and float(distance.max()) <= 2.0
    distance.mean().backward()
    last = extractor.network._blocks[4]._project_conv.weight.grad
    assert float(last.abs().max()) > 0.0
    # Were the target not cut off, its block would learn from a decoder that says nothing, too.
    extractor.zero_grad()
    for layer in tuned.decoder:
        for parameter in layer.parameters():
            parameter.data.zero_()
    tuned(image).mean().backward()
    assert all(p.grad is None or float(p.grad.abs().max()) == 0.0 for p in extractor.parameters())
    # What was tuned is what is taken.
    before = taken.eval()(image)[0].clone()
    with torch.no_grad():
        extractor.network._conv_stem.weight.mul_(1.1)
    assert not torch.allclose(taken(image)[0], before, atol=1e-3)


def test_a_backbone_of_torchvision_needs_a_file(tmp_path, random):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    extractor = FeatureExtractor(
        ("layer2", "layer3"), weights=tmp_path / "resnet18.pth", scale=1.0, backbone="resnet18"
    )
    image = torch.rand(2, 1, 64, 64, generator=random)
    fine, coarse = extractor.eval()(image)
    x = (image.expand(-1, 3, -1, -1) - extractor.mean) / extractor.std
    x = x.contiguous(memory_format=torch.channels_last)  # as the extractor has it: another order rounds otherwise
    network.eval()
    x = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(x)))))
    torch.testing.assert_close(fine, network.layer2(x))
    assert coarse.shape == (2, 256, 4, 4)
    with pytest.raises(InputError, match="name the file of torchvision's ImageNet weights of wide_resnet50_2"):
        FeatureExtractor(("layer2",), backbone="wide_resnet50_2")
    with pytest.raises(InputError, match="torchvision has no classifier 'resnet19'"):
        FeatureExtractor(("layer2",), backbone="resnet19")
    with pytest.raises(InputError, match="pip install efficientnet_lite_pytorch efficientnet_lite4_pytorch_model"):
        FeatureExtractor((4,), backbone="efficientnet_lite4")


def test_the_flow_says_what_a_density_is():
    """The integral of the density over a grid is 1."""
    torch.manual_seed(0)
    flow = ConditionalFlow(size=2, condition=1, blocks=3)
    with torch.no_grad():
        flow(torch.randn(100, 2), torch.zeros(100, 1))
        axis = torch.linspace(-8, 8, 321)
        grid = torch.cartesian_prod(axis, axis)
        density = torch.exp(2.0 * flow.log_likelihood(grid, torch.full((len(grid), 1), 0.3)))
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1.0, abs=0.01)
    assert math.isfinite(float(density.max()))
