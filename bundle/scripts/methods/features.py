"""PatchCore: a voxel is abnormal when its features lie far from all that healthy slices showed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from torch.nn.functional import avg_pool2d, interpolate

from ..errors import InputError
from ..slices import AxialSlices
from .method import Method

__all__ = ["PatchCore", "coreset"]


def coreset(vectors: torch.Tensor, number: int, seed: int = 0) -> torch.Tensor:
    """Pick vectors that lie far from each other: each time the one that is farthest from all that were picked.

    Args:
        vectors: ``(N, d)``.
        number: to pick.
        seed: of the first.

    References:
        K. Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, Algorithm 1.
    """
    first = int(torch.randint(len(vectors), (1,), generator=torch.Generator().manual_seed(seed)))
    chosen = [first]
    nearest = (vectors - vectors[first]).square().sum(dim=1)
    for _ in range(min(number, len(vectors)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (vectors - vectors[chosen[-1]]).square().sum(dim=1))
    return vectors[chosen]


class PatchCore(Method):
    """Distance of local features of axial slices to their nearest neighbour in a bank of healthy ones.

    Args:
        extractor: see `FeatureExtractor`; the levels are averaged over 3 x 3 patches and stacked on the grid of the first.
        slicer: cuts the slices.
        bank_size: vectors that are kept, by `coreset`.
        samples: vectors that are drawn of each healthy scan, before the bank is chosen of all.
        slices_per_scan: slices of each healthy scan that are looked at.
        batch_size: slices at once.
        sees: see `Method`.

    References:
        K. Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022.
    """

    def __init__(
        self,
        extractor: torch.nn.Module,
        slicer: AxialSlices,
        bank_size: int,
        samples: int,
        slices_per_scan: int = 16,
        batch_size: int = 16,
        sees: Sequence[str] = ("healthy scans", "ImageNet"),
    ) -> None:
        super().__init__(sees)
        self.extractor = extractor.eval()
        self.slicer = slicer
        self.bank_size = bank_size
        self.samples = samples
        self.slices_per_scan = slices_per_scan
        self.batch_size = batch_size
        self.bank: torch.Tensor | None = None

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The bank alone: the extractor is that of its package or file."""
        return {"bank": None if self.bank is None else self.bank.half()}

    def load_state_dict(self, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        self.bank = state["bank"].float()

    def _features(self, slices: torch.Tensor) -> torch.Tensor:
        """``(N, 1, X, Y)`` to ``(N, d, x, y)``."""
        device = next(self.extractor.parameters()).device
        slices = convert_to_tensor(slices, track_meta=False)
        levels = [avg_pool2d(level, 3, 1, 1).cpu() for level in self.extractor(slices.to(device))]
        size = levels[0].shape[2:]
        return torch.cat([interpolate(level, size, mode="bilinear", align_corners=False) for level in levels], dim=1)

    def fit(self, cases: Iterable[Mapping[Hashable, Any]]) -> None:
        random = torch.Generator().manual_seed(0)
        drawn = []
        with torch.no_grad():
            for case in cases:
                scan, brain = (convert_to_tensor(case[key], track_meta=False).float() for key in ("scan", "brain"))
                pieces, _ = self.slicer.cut(torch.cat([scan, brain]), brain)
                pieces = pieces[torch.randperm(len(pieces), generator=random)[: self.slices_per_scan]]
                features = self._features(pieces[:, :1])
                share = interpolate(pieces[:, 1:], features.shape[2:], mode="area")
                vectors = features.permute(0, 2, 3, 1)[share[:, 0] > 0.5]
                drawn.append(vectors[torch.randperm(len(vectors), generator=random)[: self.samples]])
        # The bank has half precision, as in its file, so that a method that was loaded scores as the one that was fitted.
        self.bank = coreset(torch.cat(drawn), self.bank_size).half().float()

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        if self.bank is None:
            raise InputError(
                "this PatchCore has no bank of healthy features; fit it (run training), or name its --checkpoint"
            )
        scan = convert_to_tensor(case["scan"], track_meta=False).float()
        pieces, index = self.slicer.cut(scan, case["brain"])
        found = []
        for batch in pieces.split(self.batch_size):
            features = self._features(batch)
            vectors = features.permute(0, 2, 3, 1).flatten(0, 2)
            distance = torch.cat([torch.cdist(part, self.bank).amin(dim=1) for part in vectors.split(8192)])
            grid = distance.reshape(len(batch), 1, *features.shape[2:])
            found.append(interpolate(grid, batch.shape[2:], mode="bilinear", align_corners=False))
        score = self.slicer.stack(torch.cat(found), index, scan.shape[1:])
        return {"score": MetaTensor(score, meta=dict(case["scan"].meta))}
