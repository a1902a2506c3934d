"""A real T1w in the contrast of a real T2w or FLAIR: what pairs of scans of one person teach about sequences."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import nn
from torch.nn.functional import max_pool3d

from ..blur import gaussian_blur
from ..errors import InputError
from ..labels import LabelTable
from ..neighbourhood import SURROUNDINGS, surroundings
from ..randomness import RandDictionaryTransform, voxel_noise
from ..saving import whole_file
from .typical_contrast import TypicalContrast

__all__ = ["ContrastBank", "RandBankContrast", "RandBankContrastd", "write_contrast_bank"]


class ContrastBank(nn.Module):
    """Small networks, one for each sequence, that say how bright a voxel of a T1w is in that sequence.

    Fluid fills the partial volume of the cortex, iron darkens deep gray matter, and white matter is not one thing: a T2w is no
    curve of a T1w. Each network is told what lies around a voxel (`surroundings`). Not in the paper.

    Args:
        sequences: of each network, ``name``, ``modality``, and ``spread``, the median size of what it does not explain.
        hidden: units of both layers.
    """

    def __init__(self, sequences: Sequence[Mapping[str, Any]], hidden: int = 48) -> None:
        super().__init__()
        self.sequences = [dict(sequence) for sequence in sequences]
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(SURROUNDINGS, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
            )
            for _ in self.sequences
        )

    def forward(self, features: torch.Tensor, number: int) -> torch.Tensor:
        """``(N, SURROUNDINGS)`` to ``(N,)``, intensities in [0, 1] of a sequence by its number."""
        return self.networks[number](features)[:, 0]

    def save(self, path: str | Path) -> None:
        content = {"sequences": self.sequences, "hidden": self.networks[0][0].out_features}
        with whole_file(path) as partial:
            torch.save(
                {**content, "weights": {name: value.half() for name, value in self.state_dict().items()}}, partial
            )

    @classmethod
    def load(cls, path: str | Path) -> ContrastBank:
        """Read a bank without executing pickled code.

        Raises:
            InputError: when the file is missing or is no bank.
        """
        remedy = "write one with 'run banking' (configs/bank.yaml), or leave 'bank' out"
        if not Path(path).is_file():
            raise InputError(f"there is no bank of contrasts at {path}; {remedy}")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            bank = cls(content["sequences"], content["hidden"])
            bank.load_state_dict(content["weights"])
        except Exception as error:
            raise InputError(f"{path} is no bank of contrasts; {remedy}") from error
        return bank.requires_grad_(False)


class RandBankContrast(Randomizable, Transform):
    """Draw a T1w in the contrast of real sequences: a mixture of two, shifted, with the texture that they do not explain.

    Args:
        bank: a `ContrastBank`, or the path of one.
        labels, contrast: see `TypicalContrast`; the T1w of all scanners are brought to one contrast first. None leaves it.
        spacing: voxel size, mm.
        shift: largest share of the T1w that is added or taken away: sequences differ in how far gray and white matter stand apart.
        texture: largest factor of the unexplained texture.
        texture_scale: its smoothness, standard deviation in voxels.
        prob: probability that anything is drawn.

    Returns (of a call):
        float32 ``(1, X, Y, Z)``, not negative, 0 outside the brain; the T1w itself where nothing is drawn.
    """

    def __init__(
        self,
        bank: ContrastBank | str | Path,
        labels: LabelTable,
        contrast: Mapping[str, float] | None = None,
        spacing: float = 2.0,
        shift: float = 0.15,
        texture: float = 0.5,
        texture_scale: float = 0.5,
        prob: float = 1.0,
    ) -> None:
        self.bank = bank if isinstance(bank, ContrastBank) else ContrastBank.load(bank)
        self.modalities = sorted({sequence["modality"] for sequence in self.bank.sequences})
        self.typical = TypicalContrast(labels, contrast) if contrast else None
        self.spacing = spacing
        self.shift = shift
        self.texture = texture
        self.texture_scale = texture_scale
        self.prob = prob

    def randomize(self, data=None) -> None:
        self.drawn = self.R.uniform() < self.prob
        if not self.drawn:
            return
        modality = self.modalities[self.R.randint(len(self.modalities))]
        known = [number for number, one in enumerate(self.bank.sequences) if one["modality"] == modality]
        self.numbers = [known[self.R.randint(len(known))] for _ in range(2)]
        self.share = self.R.uniform()
        self.amount = self.R.uniform(-self.shift, self.shift)
        self.roughness = self.R.uniform(0.0, self.texture)
        self.seed = self.R.randint(2**31 - 1)

    def __call__(
        self, t1: torch.Tensor, label: torch.Tensor, brain: torch.Tensor, randomize: bool = True
    ) -> torch.Tensor:
        """
        Args:
            t1: ``(1, X, Y, Z)`` healthy T1w, white matter at 0.75.
            label: label map of the same shape.
            brain: mask of the same shape.
        """
        if randomize:
            self.randomize()
        if not self.drawn:
            return t1
        typical = self.typical(t1, label) if self.typical else t1
        image, mask = (convert_to_tensor(v, track_meta=False).float() for v in (typical, brain))
        features, inside = surroundings(image, mask, self.spacing), mask > 0
        bank = self.bank.to(image.device)
        pair = [bank(features, number) for number in self.numbers]
        spread = sum(bank.sequences[number]["spread"] for number in self.numbers) / 2
        values = self.share * pair[0] + (1.0 - self.share) * pair[1] + self.amount * (features[:, 0] - 0.6)
        rough = gaussian_blur(voxel_noise(self.seed, image), self.texture_scale)
        values = values + self.roughness * spread * rough[inside] / rough.std()
        found = torch.zeros_like(image)
        found[inside] = values.clamp(min=0.0)
        return convert_to_dst_type(found, t1, dtype=torch.float32)[0]


class RandBankContrastd(RandDictionaryTransform):
    """Dictionary form of `RandBankContrast`.

    Args:
        keys: one key, the healthy T1w.
        image_key: the scan, which is replaced where a contrast is drawn.
        label_key, brain_key: see `RandBankContrast`.
        contrast: arguments of `RandBankContrast`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "scan",
        label_key: str = "label",
        brain_key: str = "brain",
        **contrast,
    ) -> None:
        super().__init__(keys, RandBankContrast(**contrast))
        self.image_key = image_key
        self.label_key = label_key
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        self.transform.randomize()
        if not self.transform.drawn:
            return dict(data)
        volumes = (data[key] for key in (self.keys[0], self.label_key, self.brain_key))
        return {**data, self.image_key: self.transform(*volumes, randomize=False)}


def write_contrast_bank(
    path: str | Path,
    subjects: Iterable[Mapping[str, Any]],
    labels: LabelTable,
    contrast: Mapping[str, float] | None,
    spacing: float,
    modalities: Sequence[str] = ("t2", "flair"),
    iterations: int = 1500,
    batch: int = 8192,
    learning_rate: float = 5e-3,
) -> ContrastBank:
    """Learn a network for every sequence of every subject, and write the bank.

    The median of the sequence is learned (L1), so that a lesion that a mask misses moves little. Lesions are left out.

    Args:
        path: of the file.
        subjects: prepared, with ``subject``, ``t1``, ``label`` and one or more of `modalities`, ``(1, X, Y, Z)`` on one grid in
            [0, 1]; ``lesion`` where there is one.
        labels, contrast, spacing: see `RandBankContrast`.
        modalities: keys of the sequences.
        iterations, batch, learning_rate: of the training of each network.

    Raises:
        InputError: when no subject has such a pair.
    """
    typical = TypicalContrast(labels, contrast) if contrast else None
    pairs = []
    for subject in subjects:
        label, t1 = subject["label"], subject["t1"]
        image, numbers = (
            convert_to_tensor(v, track_meta=False).float() for v in (typical(t1, label) if typical else t1, label)
        )
        brain = (numbers > 0).float()
        features = surroundings(image * brain, brain, spacing)
        usable = torch.ones(len(features), dtype=torch.bool)
        if "lesion" in subject:
            lesion = convert_to_tensor(subject["lesion"], track_meta=False).float()
            usable = max_pool3d((lesion > 0.1).float(), 3, 1, 1)[brain > 0] == 0
        for modality in modalities:
            if modality in subject:
                values = convert_to_tensor(subject[modality], track_meta=False).float()[brain > 0]
                seen = usable & (values > 0)  # a field of view may be smaller than that of the T1w
                pairs.append((f"{subject['subject']}_{modality}", modality, features[seen], values[seen]))
    if not pairs:
        raise InputError(f"no subject of the datalist has a t1 and one of {', '.join(modalities)}; add pairs of scans")
    torch.manual_seed(0)
    bank = ContrastBank([{"name": name, "modality": modality, "spread": 0.0} for name, modality, *_ in pairs])
    for number, (name, _, features, values) in enumerate(pairs):
        optimizer = torch.optim.Adam(bank.networks[number].parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, iterations)
        for _ in range(iterations):
            chosen = torch.randint(len(values), (batch,))
            loss = (bank(features[chosen], number) - values[chosen]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            off = bank(features, number) - values
            explained = float(torch.corrcoef(torch.stack([values + off, values]))[0, 1])
        bank.sequences[number]["spread"] = round(1.4826 * float(off.abs().median()), 5)
        print(
            f"{name}: {len(values)} voxels, correlation {explained:.3f}, unexplained {off.abs().median():.3f}",
            flush=True,
        )
    bank.save(path)
    return bank
