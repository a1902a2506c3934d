"""Tell T1w, T2w, FLAIR and CT apart, and bring each to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import distance_transform_edt

from ..errors import InputError

__all__ = ["GuessModalityd", "WindowCTd", "guess_modality"]

AIR = -300.0  # HU; no MR scan has such values
CORTEX, WHITE = (4.0, 8.0), (14.0, 60.0)  # mm below the surface of the brain mask


def guess_modality(image: MetaTensor, brain: torch.Tensor) -> tuple[str, float]:
    """MR contrast from what is brighter than white matter: CSF twice as bright in T2w, else cortex in FLAIR, not in T1w.

    Args:
        image: ``(1, X, Y, Z)``, not negative.
        brain: ``(1, X, Y, Z)`` mask.

    Returns:
        "t1", "t2" or "flair", and a confidence in [0, 1] that grows with the distance from the nearest decision.
    """
    inside = np.asarray(brain[0]) > 0
    depth = distance_transform_edt(inside, sampling=np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0))
    values = np.asarray(image[0])

    def level(low: float, high: float) -> float:
        ring = inside & (depth > low) & (depth <= high)
        return float(np.median(values[ring if ring.any() else inside]))

    white = max(level(*WHITE), 1e-6)
    cortex, bright = level(*CORTEX) / white, float(np.percentile(values[inside], 95)) / white
    if bright > 1.55:
        return "t2", float(np.clip((bright - 1.55) / 0.3, 0.0, 1.0))
    if cortex < 0.95:
        return "t1", float(np.clip((0.95 - cortex) / 0.1, 0.0, 1.0))
    return "flair", float(np.clip(min((cortex - 0.95) / 0.05, (1.55 - bright) / 0.3), 0.0, 1.0))


class GuessModalityd(MapTransform):
    """Set ``modality`` and ``modality_confidence``: what the data says (confidence 1), else CT by its air, else a guess.

    Args:
        keys: one key, the scan.
        brain_key: mask of the brain.
    """

    def __init__(self, keys: KeysCollection, brain_key: str = "brain") -> None:
        super().__init__(keys)
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        if data.get("modality"):
            return {**data, "modality_confidence": 1.0}
        modality, confidence = guess_modality(data[self.keys[0]], data[self.brain_key])
        return {**data, "modality": modality, "modality_confidence": confidence}


class WindowCTd(MapTransform):
    """Cut a CT to its brain window and shift it to 0; an MR scan is shifted so that its background is 0.

    A scan counts as CT when the data says so (``modality``) or when it has values of air; ``modality`` is set then.

    Args:
        keys: one key, the scan.
        window: HU [paper's code: 0 to 80].

    Raises:
        InputError: when a scan that is said to be CT has no air: its intensities are not Hounsfield units.
    """

    def __init__(self, keys: KeysCollection, window: tuple[float, float] = (0.0, 80.0)) -> None:
        super().__init__(keys)
        self.window = window

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        d = dict(data)
        scan = d[self.keys[0]]
        has_air = float(scan.min()) < AIR
        if d.get("modality") == "ct" and not has_air and float(scan.max()) > 2.0 * self.window[1]:
            raise InputError(
                f"{scan.meta.get('filename_or_obj', 'the scan')} is said to be CT, but its values "
                f"({float(scan.min()):g} to {float(scan.max()):g}) are not Hounsfield units; convert them, or correct the modality"
            )
        if has_air or d.get("modality") == "ct":
            d["modality"] = "ct"
            low, high = self.window
            values = scan.as_tensor().clamp(low, high) - low
        else:
            # The background of MR is near 0; resampling may leave some of it below.
            values = scan.as_tensor().clamp(min=0.0)
        d[self.keys[0]] = MetaTensor(values, meta=dict(scan.meta))
        return d
