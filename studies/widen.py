"""Weights for a network that has powers of the scan: ``PYTHONPATH=bundle python -m studies.widen OLD.pt NEW.pt``.

The new network draws what the old one drew; its new channels begin at 0.
"""

import sys

import torch
from scripts.learning import read_weights, save_atomically
from scripts.networks import BlendingUNet


def widened(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    new = BlendingUNet().state_dict()
    before = BlendingUNet(powers=1)
    kept, all_blocks = before.fold_out.weight.shape[0], new["fold_out.weight"].shape[0]
    sources, more = before.sources, new["fold_out.weight"].shape[1] // 2
    for name, value in old.items():
        value = value.float()
        if name == "fold_out.weight":
            new[name][:kept] = 0.0
            for output in (0, 1):
                new[name][:kept, output * more : output * more + sources] = value[
                    :, output * sources : (output + 1) * sources
                ]
        elif value.shape != new[name].shape:
            assert value.shape[0] == kept and new[name].shape[0] == all_blocks, name
            new[name] = torch.zeros_like(new[name])
            new[name][:kept] = value
        else:
            new[name] = value
    return new


if __name__ == "__main__":
    save_atomically(widened(read_weights(sys.argv[1], "name the weights of a released version")), sys.argv[2])
