"""The seam: what every anomaly detection method is to the house. Left of it all is the method's, right of it all is shared."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..errors import InputError
from ..learning import read_weights
from ..modalities import known_as

__all__ = ["GIVEN", "Method"]

GIVEN = ("scan", "mirrored", "brain", "modality")


class Method(torch.nn.Module):
    """A way to score how abnormal every voxel of a prepared scan is.

    A method is handed the items `GIVEN` of a case and nothing else, so that it cannot see the truth: ``scan``, the brain-extracted
    scan on the working grid, ``(1, X, Y, Z)`` in [0, 1]; ``mirrored``, the same with its sides exchanged; ``brain``, a mask; and
    ``modality``. A subclass writes `maps`, and `fit` where it learns without gradients. Gradients belong to its trainer, see
    ``configs/guest.yaml``.

    Args:
        sees: what the method was shown before it meets a scan ("healthy scans", "label maps", "simulated lesions", "ImageNet").
            Every table prints it.
        priors: what its score takes for granted about disease ("lesions are bright in T2w"). Every table prints it.

    Attributes:
        limits: by modality, what the score of healthy people rarely exceeds; scores are divided by it, so that 1 is the limit.
            Empty where the score stays as it is.
    """

    def __init__(self, sees: Sequence[str] = (), priors: Sequence[str] = ()) -> None:
        super().__init__()
        self.sees = tuple(sees)
        self.priors = tuple(priors)
        self.limits: dict[str, float] = {}

    def fit(self, cases: Iterable[Mapping[Hashable, Any]]) -> None:
        """Learn from prepared healthy cases what needs no gradient; by default there is nothing to learn."""

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        """Look at a case.

        Args:
            case: the items `GIVEN`.

        Returns:
            ``score``, ``(1, X, Y, Z)``, higher where it is more abnormal, and further pictures of the method, such as ``healthy``.
        """
        raise NotImplementedError

    def forward(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        """`maps` without gradients; the score is float32, not negative, and 0 outside the brain and where the case is not ``seen``.

        Raises:
            InputError: when the score is not finite, or the method has limits, but none of this modality.
        """
        given = {key: case[key] for key in GIVEN}
        with torch.no_grad():
            found = self.maps(given)
        values = convert_to_tensor(found["score"], track_meta=False).float().cpu()
        if not torch.isfinite(values).all():
            raise InputError(
                f"the score of {type(self).__name__} is not finite; its weights or its training are damaged"
            )
        inside = convert_to_tensor(case["brain"], track_meta=False).cpu() > 0
        if "seen" in case:  # a brain that the border of its scan cuts is not judged there
            inside = inside & (convert_to_tensor(case["seen"], track_meta=False).cpu() > 0)
        found["score"] = MetaTensor(
            values.clamp(min=0.0) * inside / self._limit(case["modality"]), affine=case["scan"].affine
        )
        return found

    def _limit(self, modality: str) -> float:
        if not self.limits:
            return 1.0
        modality = known_as(modality, self.limits)
        if modality not in self.limits:
            raise InputError(
                f"the limits of this {type(self).__name__} are of {', '.join(self.limits)}, not of {modality}"
            )
        return self.limits[modality]

    def picture(self, case: Mapping[Hashable, Any]) -> MetaTensor:
        """What the method makes of a case, to compare two looks at it: its healthy scan where it has one, else its score."""
        found = self(case)
        return found.get("pred_healthy", found["score"])

    def score(self, case: Mapping[Hashable, Any]) -> MetaTensor:
        """The score of a case alone, see `forward`."""
        return self(case)["score"]

    def load(self, path: str | Path | None) -> Method:
        """Read the weights that `train_method` wrote.

        Args:
            path: of the file; None leaves the method as it is.

        Raises:
            InputError: when the file is missing, is no such file, or belongs to another method.
        """
        if path is None:
            return self
        remedy = "train the method (run training), or name its --checkpoint"
        state = read_weights(path, remedy)
        try:
            self.load_state_dict(state)
        except Exception as error:
            why = str(error).replace("\n", " ")[:300]
            raise InputError(f"{path} holds no weights of this {type(self).__name__}: {why}; {remedy}") from error
        return self
