"""Mixed precision on any device."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer

__all__ = ["MixedPrecisionInferer"]


def bfloat16_in_hardware() -> bool:
    """Whether the CPU calculates in bfloat16. PyTorch's own check is content with AVX-512, where it may be emulated."""
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and (not x86 or torch.cpu._is_avx512_bf16_supported())


class MixedPrecisionInferer(SimpleInferer):
    """Run the network under bfloat16 autocast on the device of its input, and return float32; a dictionary is returned as it is.

    MONAI's engines autocast on CUDA only (``amp=True``); bfloat16 also runs in hardware on recent CPUs, and its range
    needs no gradient scaler.

    A CPU without bfloat16 instructions emulates them, three to a hundred times slower than float32: there all stays in float32.
    On a CPU with them, inputs smaller than `smallest_cpu_size` along any axis do: the bfloat16 weight gradient of a 3D
    convolution over two voxels reads uninitialised memory in oneDNN (torch 2.11) and now and then returns NaN, and a UNet that
    halves its grid four times comes down to two voxels below 48.

    Args:
        enabled: False for plain float32.
        smallest_cpu_size: voxels.
    """

    def __init__(self, enabled: bool = True, smallest_cpu_size: int = 48) -> None:
        super().__init__()
        self.enabled = enabled
        self.smallest_cpu_size = smallest_cpu_size

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        useful = inputs.device.type != "cpu" or (
            min(inputs.shape[2:]) >= self.smallest_cpu_size and bfloat16_in_hardware()
        )
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled and useful):
            result = super().__call__(inputs, network, *args, **kwargs)
        return result if isinstance(result, dict) else result.float()
