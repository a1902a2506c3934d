"""The training of SimpleSliceNet's flow: vectors of healthy scans are likely, abnormal ones are not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import nn
from torch.nn.functional import logsigmoid, pairwise_distance

from ..networks import ConditionalFlow, SliceFeatures, position_codes

__all__ = ["FlowLikelihoods", "FlowLoss", "RandFeatureVectorsd", "SliceFeaturesd", "feature_codes", "prepare_vectors"]


def feature_codes(
    grid: Sequence[int], size: int, with_depth: bool, modalities: Sequence[str], modality: str
) -> torch.Tensor:
    """What the flow knows of every place: its code, see `position_codes`, and which of some modalities the scan is, one-hot.

    Args:
        grid: ``(x, y, z)``.
        size: of the code of a place.
        with_depth: whether that tells z, too, counted from the lowest slice of the brain.
        modalities: that are told apart; [] for one flow of all.
        modality: of the scan.

    Returns:
        ``(x, y, z, size + len(modalities))``.
    """
    known = grid if with_depth else (*grid[:2], 1)
    places = position_codes(known if with_depth else known[:2], size).reshape(*known, size).expand(*grid, size)
    which = torch.tensor([float(modality == name) for name in modalities]).expand(*grid, len(modalities))
    return torch.cat([places, which], dim=-1)


class SliceFeaturesd(MapTransform):
    """From a prepared case to its features: ``features`` ``(d, x, y, z)`` in half precision, ``inside``, the share of the brain in
    each place, ``(1, x, y, z)``, ``abnormal``, the share of the case's ``anomaly`` or none, and ``modality``.

    Args:
        keys: one key, the scan.
        features: see `SliceFeatures`.
        lesion_threshold: of the anomaly's probability, above which a voxel is lesion.
    """

    def __init__(self, keys: KeysCollection, features: SliceFeatures, lesion_threshold: float = 0.2) -> None:
        super().__init__(keys)
        self.features = features
        self.lesion_threshold = lesion_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        brain = data["brain"] > 0
        lesion = data["anomaly"] > self.lesion_threshold if "anomaly" in data else torch.zeros_like(brain)
        features, inside, abnormal, _ = self.features(data[self.keys[0]], brain, lesion)
        return {
            "features": features.half(),
            "inside": inside,
            "abnormal": abnormal,
            "modality": data.get("modality", ""),
        }


class RandFeatureVectorsd(RandomizableTransform, MapTransform):
    """Random vectors of a case with features, see `SliceFeaturesd`, their codes, and abnormal ones.

    Adds ``vectors`` ``(n, d)`` and ``codes`` ``(n, c)`` of healthy places, ``abnormal_vectors`` and ``abnormal_codes``. Abnormal
    are the same vectors with noise, or, where the case has a lesion, vectors of its places.

    Args:
        keys: one key, the features.
        number: of vectors, n.
        noise: its standard deviation, in those of each channel.
        code_size, with_depth, modalities: see `feature_codes`.
        least: share of a place that is lesion, for the place to count as such. Of the brain any share counts: all of it is scored.
    """

    def __init__(
        self,
        keys: KeysCollection,
        number: int,
        noise: float,
        code_size: int,
        with_depth: bool = False,
        modalities: Sequence[str] = (),
        least: float = 0.5,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.number = number
        self.noise = noise
        self.code_size = code_size
        self.with_depth = with_depth
        self.modalities = tuple(modalities)
        self.least = least

    def _pick(self, places: torch.Tensor) -> torch.Tensor:
        """``(n, 3)`` of the places of a mask, each as often as chance will."""
        known = places[0].nonzero()
        return known[torch.as_tensor(self.R.randint(len(known), size=self.number))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        features, brain = data[self.keys[0]], data["inside"] > 0
        codes = feature_codes(
            features.shape[1:], self.code_size, self.with_depth, self.modalities, str(data["modality"])
        )
        of = lambda places: (features[:, *places.T].T.float(), codes[*places.T])  # noqa: E731
        vectors, where = of(self._pick(brain & (data["abnormal"] == 0)))
        lesion = brain & (data["abnormal"] >= self.least)
        if lesion.any():
            abnormal, abnormal_codes = of(self._pick(lesion))
        else:
            noise = torch.as_tensor(self.R.normal(size=vectors.shape), dtype=torch.float32)
            abnormal, abnormal_codes = vectors + self.noise * vectors.std(dim=0) * noise, where
        return {"vectors": vectors, "codes": where, "abnormal_vectors": abnormal, "abnormal_codes": abnormal_codes}


def prepare_vectors(
    batch: Mapping[str, torch.Tensor], device: torch.device | str | None = None, non_blocking: bool = False, **kwargs
) -> tuple[dict[str, torch.Tensor], None]:
    """``prepare_batch`` of the trainer: the vectors of all scans of a step together. There is no target."""
    return {key: value.flatten(0, 1).to(device, non_blocking=non_blocking) for key, value in batch.items()}, None


class FlowLikelihoods(nn.Module):
    """The likelihoods of healthy and of abnormal vectors, ``(2, N)``, see `ConditionalFlow.log_likelihood`."""

    def __init__(self, flow: ConditionalFlow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        pairs = (("vectors", "codes"), ("abnormal_vectors", "abnormal_codes"))
        return torch.stack([self.flow.log_likelihood(batch[v], batch[c]) for v, c in pairs])


class FlowLoss(nn.Module):
    """Maximum likelihood of healthy vectors, ``mean(-log sigmoid(l))``, and a semi-push-pull loss, which pushes abnormal ones away.

    ``push`` is one of

    - ``triplet``: ``mean max(0, |l - l'| - |l - a| + margin)`` over healthy l, other healthy l' and abnormal a, vector by vector;
    - ``triplet_batch``: the same of all likelihoods of the step as one vector, which is what the paper's public code computes;
    - ``ranking``: ``mean max(0, margin - (l - a))``;
    - ``boundary``: the healthy below a boundary b and the abnormal above ``b - tau`` are brought back, the mean over those that
      are; b is the `beta` quantile of the healthy of the step, of likelihoods divided by ten [its code, after BGAD];
    - ``none``: maximum likelihood alone.

    Args:
        push: see above [paper: triplet].
        margin: of triplet and ranking loss [paper: 1].
        beta, tau: of the boundary [BGAD: 0.05, 0.1].
        weight: of the semi-push-pull loss [paper: 1].

    References:
        Z. Zhang, Y. Mohsenzadeh, Efficient Slice Anomaly Detection Network for 3D Brain MRI Volume, PLOS Digital Health 4(6), 2025,
        whose Eq. 8 has the sign of the likelihood turned round; X. Yao et al., BGAD, CVPR 2023 (boundary).
    """

    PUSHES = ("triplet", "triplet_batch", "ranking", "boundary", "none")

    def __init__(
        self, push: str = "triplet", margin: float = 1.0, beta: float = 0.05, tau: float = 0.1, weight: float = 1.0
    ) -> None:
        super().__init__()
        if push not in self.PUSHES:
            raise ValueError(f"push is one of {', '.join(self.PUSHES)}, not {push}")
        self.push = push
        self.margin = margin
        self.beta = beta
        self.tau = tau
        self.weight = weight

    def forward(self, likelihoods: torch.Tensor, target: None = None) -> torch.Tensor:
        """
        Args:
            likelihoods: ``(2, N)``, see `FlowLikelihoods`.
        """
        healthy, abnormal = likelihoods.float()
        loss = -logsigmoid(healthy).mean()
        return loss if self.push == "none" else loss + self.weight * getattr(self, f"_{self.push}")(healthy, abnormal)

    def _triplet(self, healthy: torch.Tensor, abnormal: torch.Tensor) -> torch.Tensor:
        # The vectors of a step come in random order: a neighbour is a random other.
        near, far = (healthy - healthy.roll(1)).abs(), (healthy - abnormal).abs()
        return (near - far + self.margin).clamp(min=0.0).mean()

    def _triplet_batch(self, healthy: torch.Tensor, abnormal: torch.Tensor) -> torch.Tensor:
        near, far = (pairwise_distance(healthy, other) for other in (healthy.roll(1), abnormal))
        return (near - far + self.margin).clamp(min=0.0)

    def _ranking(self, healthy: torch.Tensor, abnormal: torch.Tensor) -> torch.Tensor:
        return (self.margin - (healthy - abnormal)).clamp(min=0.0).mean()

    def _boundary(self, healthy: torch.Tensor, abnormal: torch.Tensor) -> torch.Tensor:
        healthy, abnormal = healthy / 10.0, abnormal / 10.0
        boundary = healthy.detach().quantile(self.beta)
        low, high = (boundary - healthy).clamp(min=0.0), (abnormal - boundary + self.tau).clamp(min=0.0)
        return sum(part.sum() / (part > 0).sum().clamp(min=1) for part in (low, high))
