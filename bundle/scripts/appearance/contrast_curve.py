"""A real scan in a contrast that nobody acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..errors import InputError
from ..randomness import RandDictionaryTransform, weighted_choice

__all__ = ["RandContrastCurve", "RandContrastCurved", "along_curve"]


def along_curve(image: torch.Tensor, knots: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Send intensities through a curve that is linear between its knots and constant beyond them.

    Args:
        image: float32, any shape.
        knots: intensities, increasing.
        values: what becomes of them.
    """
    knots, values = (table.to(image.device) for table in (knots, values))
    right = torch.searchsorted(knots, image.contiguous()).clamp(1, len(knots) - 1)
    share = ((image - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0.0, 1.0)
    return torch.lerp(values[right - 1], values[right], share)


class RandContrastCurve(Randomizable, Transform):
    """Send the intensities of a T1w through a random curve, linear between the knots, so that what was dark may become bright.

    A label map has no gyri finer than its labels, no vessels and no scanner's texture; a real T1w has them, in one contrast
    only. The curve keeps the anatomy and changes the contrast, by other means than the random modality of Eq. 4. MONAI's
    `RandHistogramShift` keeps the order of intensities, and with it the contrast of a T1w. Not in the paper.

    Args:
        knots: increasing intensities, each about that of a tissue; their new values are drawn. 0 stays 0.
        contrasts: kinds of contrast to choose from, each with ``weight`` (relative frequency) and ``values`` (a range of new
            values for every knot).
        prob: probability that anything changes.

    Returns (of a call):
        float32, same shape.

    Raises:
        InputError: when a contrast has not a range for every knot.
    """

    def __init__(self, knots: Sequence[float], contrasts: Sequence[Mapping[str, Any]], prob: float = 0.5) -> None:
        self.knots = torch.tensor([0.0, *knots])
        self.contrasts = list(contrasts)
        for contrast in self.contrasts:
            if len(contrast["values"]) != len(knots):
                raise InputError(f"{len(knots)} knots need as many ranges of values, not {len(contrast['values'])}")
        self.prob = prob
        self.curve: torch.Tensor | None = None

    def randomize(self, data=None) -> None:
        changed = self.R.uniform() < self.prob
        values = [self.R.uniform(*span) for span in weighted_choice(self.R, self.contrasts)["values"]]
        self.curve = torch.tensor([0.0, *values], dtype=torch.float32) if changed else None

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        if self.curve is None:
            return img
        image = convert_to_tensor(img, track_meta=False).to(torch.float32)
        return convert_to_dst_type(along_curve(image, self.knots, self.curve), img, dtype=torch.float32)[0]


class RandContrastCurved(RandDictionaryTransform):
    """Dictionary form of `RandContrastCurve`; `curve` are its arguments."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **curve) -> None:
        super().__init__(keys, RandContrastCurve(**curve), allow_missing_keys)
