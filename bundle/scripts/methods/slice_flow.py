"""SimpleSliceNet: a place is abnormal when a flow finds the features of its slices unlikely."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import GaussianSmooth
from torch.nn.functional import logsigmoid

from ..errors import InputError
from ..learning import feature_codes
from ..modalities import known_as
from ..networks import ConditionalFlow, SliceFeatures
from .method import Method

__all__ = ["SliceFlow"]


class SliceFlow(Method):
    """Unlikelihood of the features of axial slices, given their place.

    The score is ``-log sigmoid(l)`` of the likelihood l, which is comparable across people. The paper's, by `rescale`, is measured
    from the likeliest place of each volume and then stretched to [0, 1], so that every volume has a most abnormal place.

    Args:
        features: see `SliceFeatures`.
        flow: see `ConditionalFlow`.
        code_size, with_depth, modalities: see `scripts.learning.feature_codes`.
        smoothing: standard deviation of a Gaussian filter of the likelihood, voxels [paper: 4 mm].
        rescale: whether the score is the paper's.
        sees: see `Method`.

    References:
        Z. Zhang, Y. Mohsenzadeh, Efficient Slice Anomaly Detection Network for 3D Brain MRI Volume, PLOS Digital Health 4(6), 2025.
    """

    def __init__(
        self,
        features: SliceFeatures,
        flow: ConditionalFlow,
        code_size: int,
        with_depth: bool = False,
        modalities: Sequence[str] = (),
        smoothing: float = 2.0,
        rescale: bool = False,
        sees: Sequence[str] = ("healthy scans", "ImageNet"),
    ) -> None:
        super().__init__(sees)
        self.features = features
        self.flow = flow
        self.code_size = code_size
        self.with_depth = with_depth
        self.modalities = tuple(modalities)
        self.smooth = GaussianSmooth(smoothing)
        self.rescale = rescale

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The flow, and of the extractor what it needs: a training may have tuned it."""
        return {"flow": self.flow.state_dict(), "extractor": self.features.local.extractor.used_state()}

    def load_state_dict(self, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        extractor = self.features.local.extractor
        if set(state["extractor"]) != set(extractor.used_state()):
            raise InputError("its extractor has other blocks, or is of another backbone")
        extractor.load_state_dict(state["extractor"], strict=False)
        self.flow.load_state_dict(state["flow"])

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        modality = known_as(case["modality"], self.modalities)
        if self.modalities and modality not in self.modalities:
            raise InputError(f"this flow was trained on {', '.join(self.modalities)}, not on {modality}")
        features, brain, index = self.features(case["scan"], case["brain"])
        grid = features.shape[1:]
        codes = feature_codes(grid, self.code_size, self.with_depth, self.modalities, modality)
        device = next(self.flow.parameters()).device
        likelihood = torch.cat(
            [
                self.flow.log_likelihood(vectors.to(device), code.to(device)).cpu()
                for vectors, code in zip(features.flatten(1).T.split(8192), codes.flatten(0, 2).split(8192))
            ]
        )
        shape = case["scan"].shape[1:]
        # The flow knows nothing of places without any brain: a voxel at the surface is told by the others around it.
        held = (brain > 0).float()
        weighed, weight = (
            self.smooth(self.features.restore(values, index, shape))
            for values in (held * likelihood.reshape(1, *grid), held)
        )
        volume = weighed / weight.clamp(min=1e-3)
        if self.rescale:
            inside = torch.as_tensor(case["brain"]) > 0
            likeliest = volume[inside].max()
            unlike = 1.0 - torch.exp(volume - likeliest)
            low, high = unlike[inside].min(), unlike[inside].max()
            score = (unlike - low) / (high - low).clamp(min=1e-12)
        else:
            score = -logsigmoid(volume)
        return {"score": MetaTensor(score, meta=dict(case["scan"].meta))}
