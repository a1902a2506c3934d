"""Mixed precision on any device."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer

__all__ = ["MixedPrecisionInferer"]


class MixedPrecisionInferer(SimpleInferer):
    """Run the network under bfloat16 autocast on the device of its input, and return float32.

    MONAI's engines autocast on CUDA only (``amp=True``); bfloat16 also runs in hardware on recent CPUs, and its range
    needs no gradient scaler.

    Args:
        enabled: False for plain float32.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            return super().__call__(inputs, network, *args, **kwargs).float()
