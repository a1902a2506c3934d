"""From a batch of the data loader to what trainer and evaluator work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.utils import convert_to_tensor

__all__ = ["PrepareSample"]

TARGET_KEYS = (
    "healthy",
    "intact",
    "anomaly",
    "attention",
    "mirrored_anomaly",
    "scan",
    "mirrored",
    "brain",
    "diseased",
)


class PrepareSample:
    """``prepare_batch`` of the engines: network input and targets, on the device.

    Args:
        input_keys: items that become the channels of the network's input [paper: the scan and its mirror image].
    """

    def __init__(self, input_keys: Sequence[str] = ("scan", "mirrored")) -> None:
        self.input_keys = tuple(input_keys)

    def __call__(
        self, batch: Mapping[str, torch.Tensor], device: torch.device | str | None = None, non_blocking=False, **kwargs
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target = {
            key: convert_to_tensor(batch[key], track_meta=False).to(device, non_blocking=non_blocking)
            for key in TARGET_KEYS
        }
        inputs = torch.cat([target[key] for key in self.input_keys], dim=1)
        return inputs, target
