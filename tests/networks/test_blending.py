"""The blending network: what its weights mean, and that each output has its own."""

import torch
from scripts.networks import BlendingUNet

FEATURES = (8, 8, 8)


def test_the_weights_blend_scan_partner_and_constant():
    network = BlendingUNet(features=FEATURES, powers=1)
    with torch.no_grad():
        network.fold_in.weight.zero_()
        network.unet.output_block.conv.conv.weight.zero_()
        network.unet.output_block.conv.conv.bias.fill_(1.0)
        # Every folded channel is 1: the weight of a source is the sum over them of one voxel of the unfolding kernel.
        network.fold_out.weight.zero_()
        for channel, weight in enumerate((0.5, 0.25, 0.125, 0.5, 0.5, 0.0)):
            network.fold_out.weight[0, channel] = weight
        network.bias.copy_(torch.tensor([0.01, 0.02]))
    x = torch.rand(1, 2, 16, 16, 16)
    healthy, intact = network(x).split(1, dim=1)
    torch.testing.assert_close(healthy, 0.5 * x[:, :1] + 0.25 * x[:, 1:] + 0.125 + 0.01)
    torch.testing.assert_close(intact, 0.5 * x[:, :1] + 0.5 * x[:, 1:] + 0.02)


def test_powers_of_the_scan_make_a_curve():
    """A T2w becomes a T1w by weights that are the same everywhere: 1 - 2 s + 3 s^2 - s^3."""
    network = BlendingUNet(features=FEATURES, powers=3)
    with torch.no_grad():
        network.unet.output_block.conv.conv.weight.zero_()
        network.unet.output_block.conv.conv.bias.fill_(1.0)
        network.fold_out.weight.zero_()
        for channel, weight in {0: -2.0, 2: 1.0, 3: 3.0, 4: -1.0}.items():
            network.fold_out.weight[0, channel] = weight
    x = torch.rand(1, 2, 16, 16, 16)
    healthy, intact = network(x).split(1, dim=1)
    scan = x[:, :1]
    torch.testing.assert_close(healthy, 1 - 2 * scan + 3 * scan**2 - scan**3)
    assert not intact.any()


def test_each_output_has_weights_of_its_own():
    network = BlendingUNet(features=FEATURES, powers=1)
    x = torch.rand(1, 2, 16, 16, 16)
    for output in (0, 1):
        network.zero_grad()
        network(x)[:, output].sum().backward()
        touched = network.fold_out.weight.grad.abs().sum(dim=(0, 2, 3, 4)) > 0
        assert touched.tolist() == [output == 0] * 3 + [output == 1] * 3
        assert network.fold_in.weight.grad.abs().sum() > 0


def test_a_network_without_mirrored_input_and_without_folding():
    network = BlendingUNet(in_channels=1, features=FEATURES, fold=1).eval()
    assert network(torch.rand(1, 1, 8, 12, 8)).shape == (1, 2, 8, 12, 8)
