"""A healthy T1w that a network drew, voxel by voxel nearer to what the scan says."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from torch import nn

from ..errors import InputError
from ..neighbourhood import LOOK, WHEREABOUTS, look, whereabouts
from ..saving import file_hash, whole_file
from .doubt import doubt

__all__ = ["RefineT1wd", "T1wRefiner"]


class T1wRefiner(nn.Module):
    """What a T2w or FLAIR adds to the healthy T1w that was drawn of it, by a small network that sees one voxel after the other.

    The network that draws is short of training, and a few pairs of real scans teach a voxel's network more: it is told what lies
    around the voxel in the scan and in the T1w that was drawn, its depth and its place. Not in the paper.

    Args:
        modalities: that it was taught.
        weights: hash of the weights of the network that drew; it belongs to them.
        hidden: units of both layers.

    Shape:
        ``(N, 2 LOOK + WHEREABOUTS + modalities)`` to ``(N,)``, to be added.
    """

    def __init__(self, modalities: Sequence[str] = ("t2", "flair"), weights: str = "", hidden: int = 64) -> None:
        super().__init__()
        self.modalities, self.weights, self.hidden = tuple(modalities), weights, hidden
        inputs = 2 * LOOK + WHEREABOUTS + len(self.modalities)
        self.network = nn.Sequential(
            nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def features(
        self, drawn: torch.Tensor, scan: torch.Tensor, brain: torch.Tensor, modality: str, spacing: float
    ) -> torch.Tensor:
        """A row a voxel of the brain; volumes are ``(1, X, Y, Z)``, the first axis from left to right, `spacing` is in mm."""
        rows = torch.cat([look(scan, brain), look(drawn, brain), whereabouts(brain, spacing)], dim=1)
        said = rows.new_tensor([[float(modality == one) for one in self.modalities]])
        return torch.cat([rows, said.expand(len(rows), -1)], dim=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.network(features)[:, 0]

    def save(self, path: str | Path) -> None:
        known = {"modalities": list(self.modalities), "weights": self.weights, "hidden": self.hidden}
        with whole_file(path) as partial:
            torch.save({**known, "state": {name: value.half() for name, value in self.state_dict().items()}}, partial)

    @classmethod
    def load(cls, path: str | Path) -> T1wRefiner:
        """Read a refiner without executing pickled code.

        Raises:
            InputError: when the file is missing or is no refiner.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            refiner = cls(content["modalities"], content["weights"], content["hidden"])
            refiner.load_state_dict(content["state"])
        except Exception as error:
            raise InputError(f"{path} is no refiner of a healthy T1w; leave it out by 'refiner': None") from error
        return refiner.requires_grad_(False)


class RefineT1wd(MapTransform):
    """Refine the healthy T1w of a T2w or FLAIR. Where the scan may be ill (`doubt`) it stays what the network drew.

    The score does not see it: what follows the scan closely would hide a lesion.

    Args:
        keys: one key, the healthy T1w on the working grid.
        path: file of a `T1wRefiner`.
        weights: file of the weights that drew. A refiner that was taught with other weights does nothing.
        image_key, brain_key, modality_key: scan, mask and modality.
        score_key, intact_key: see `doubt`; they may be missing.
        allow_missing_keys: leave out what is not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        path: str | Path,
        weights: str | Path,
        image_key: str = "scan",
        brain_key: str = "brain",
        modality_key: str = "modality",
        score_key: str = "score",
        intact_key: str = "pred_intact",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        refiner = T1wRefiner.load(path)
        fits = Path(weights).is_file() and file_hash(weights) == refiner.weights
        self.refiner = refiner if fits else None
        self.image_key = image_key
        self.brain_key = brain_key
        self.modality_key = modality_key
        self.score_key = score_key
        self.intact_key = intact_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d, modality = dict(data), str(data[self.modality_key])
        if self.refiner is None or modality not in self.refiner.modalities:
            return d
        scan, brain = d[self.image_key], convert_to_tensor(d[self.brain_key], track_meta=False) > 0.5
        sure = 1.0 - doubt(scan, brain, d.get(self.score_key), d.get(self.intact_key))
        for key in self.key_iterator(d):
            drawn = d[key].as_tensor().float()
            spacing = float(scan.affine[:3, :3].det().abs()) ** (1 / 3)
            rows = self.refiner.features(drawn, scan.as_tensor().float(), brain.float(), modality, spacing)
            added = torch.zeros_like(drawn)
            added[brain] = self.refiner(rows)
            d[key] = MetaTensor((drawn + sure * added).clamp(min=0.0), meta=dict(d[key].meta))
        return d
