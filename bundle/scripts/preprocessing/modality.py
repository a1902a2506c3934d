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
from .background import zero_background

__all__ = ["GuessModalityd", "WindowCTd", "guess_modality"]

AIR, AIR_SHARE = -300.0, 0.01  # HU, and the share of voxels below it that makes a scan a CT: one voxel decides nothing
BRIGHT_SHARE = 0.05  # of what is above 0 in a CT without air, at most: that is over twice the window
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
    """Set ``modality``, what the data says, else CT by its air, else a guess; and ``modality_guess`` with
    ``modality_confidence``, what the intensities of an MR scan say, whatever it is called.

    Args:
        keys: one key, the scan.
        brain_key: mask of the brain.
    """

    def __init__(self, keys: KeysCollection, brain_key: str = "brain") -> None:
        super().__init__(keys)
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        if data.get("modality") == "ct":
            return {**data, "modality_guess": "ct", "modality_confidence": 1.0}
        guess, confidence = guess_modality(data[self.keys[0]], data[self.brain_key])
        modality = data.get("modality") or guess
        return {**data, "modality": modality, "modality_guess": guess, "modality_confidence": confidence}


class WindowCTd(MapTransform):
    """Cut a CT to its brain window and shift it to 0; the background of an MR scan becomes 0 (`zero_background`).

    A scan counts as CT when the data says so (``modality``), or, where it says nothing, when it has the values of air;
    ``modality`` is set then.

    Args:
        keys: one key, the scan.
        window: HU [paper's code: 0 to 80].

    Raises:
        InputError: when a scan that is said to be CT has no air: its intensities are not Hounsfield units.
    """

    def __init__(self, keys: KeysCollection, window: tuple[float, float] = (0.0, 80.0)) -> None:
        super().__init__(keys)
        self.window = window

    def _bright_share(self, values: torch.Tensor) -> float:
        # A calcification or a clip is few voxels; soft tissue is most of what an extracted CT has.
        positive = values[values > 0]
        return float((positive > 2.0 * self.window[1]).float().mean()) if positive.numel() else 0.0

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        d = dict(data)
        scan = d[self.keys[0]]
        values = scan.as_tensor()
        finite = torch.isfinite(values)
        has_air = int(((values < AIR) & finite).sum()) > AIR_SHARE * values.numel()
        if d.get("modality") == "ct" and not has_air and self._bright_share(values[finite]) > BRIGHT_SHARE:
            raise InputError(
                f"{scan.meta.get('filename_or_obj', 'the scan')} is said to be CT, but its values "
                f"({float(values[finite].min()):g} to {float(values[finite].max()):g}) are not Hounsfield units; convert them, or "
                "correct the modality"
            )
        if d.get("modality") == "ct" or (has_air and not d.get("modality")):
            d["modality"] = "ct"
            low, high = self.window
            values = torch.where(finite, values, low).clamp(low, high) - low
        else:
            values = zero_background(values)
        d[self.keys[0]] = MetaTensor(values, meta=dict(scan.meta))
        return d
