"""What a network drew on a coarse grid, as sharp as the scan wherever the scan is healthy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations_with_replacement

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.networks.layers import GaussianFilter
from monai.transforms import MapTransform, SpatialCrop, Transform, generate_spatial_bounding_box

from ..preprocessing import WindowCTd
from ..similarity import scale_factor
from ..volumes import on_grid, without_header
from .doubt import doubt

__all__ = ["FineDetail", "FineDetaild"]


def prepared_factor(image: MetaTensor, prepared: MetaTensor, brain: MetaTensor) -> float:
    """From the scan to the scale of the prepared one. Where that is near 1, it may have been cut, and tells nothing."""
    seen = on_grid(image, prepared).as_tensor()
    return scale_factor(seen, prepared.as_tensor(), (brain.as_tensor() > 0.5) & (prepared.as_tensor() < 0.95))


class FineDetail(Transform):
    """Bring an image that a network drew from a scan to the grid of the scan, with the detail of the scan.

    Around every voxel the drawn image is fitted by a polynomial of the scan, as in a guided filter. The same polynomial of the
    finer scan has the detail of the scan, and the contrast of the drawn image: a T2w gives a T1w its detail. What the polynomial
    leaves over is interpolated and added. So the image stays what the network drew, where it is seen on the coarse grid.

    A network draws more smoothly than it sees. So the smoothed polynomial is fitted.

    In a lesion the drawn image is healthy and the scan is not. There the polynomial of the surroundings does not fit. Such voxels
    count less in the fit (Tukey's biweight, in turns), and get less detail. A small lesion may fit all the same. So what a score
    marks, or nearly marks, and where the intact scan differs from the scan, counts less, too (`doubt`).

    Args:
        degree: of the polynomial. A FLAIR needs 3: fluid is dark, white matter brighter, gray matter brightest.
        reach: standard deviation of the Gaussian weights around a voxel, mm.
        width: of the network's smoothness, standard deviation in mm.
        ridge: of the fit.
        unusual: misfit at which a voxel does not count, in robust standard deviations.
        patch: standard deviation of the Gaussian by which misfits are averaged, mm: a lesion is no single voxel.
        turns: of the fit.

    References:
        K. He, J. Sun, X. Tang, Guided Image Filtering, IEEE TPAMI 35, 2013.
        P. J. Rousseeuw, A. M. Leroy, Robust Regression and Outlier Detection, 1987 (biweight, median absolute deviation).
    """

    def __init__(
        self,
        degree: int = 3,
        reach: float = 4.0,
        width: float = 0.8,
        ridge: float = 1e-4,
        unusual: float = 3.0,
        patch: float = 4.0,
        turns: int = 3,
    ) -> None:
        self.degree = degree
        self.reach = reach
        self.width = width
        self.ridge = ridge
        self.unusual = unusual
        self.patch = patch
        self.turns = turns

    def __call__(
        self,
        drawn: MetaTensor,
        image: MetaTensor,
        prepared: MetaTensor,
        brain: MetaTensor,
        score: torch.Tensor | None = None,
        intact: torch.Tensor | None = None,
    ) -> MetaTensor:
        """
        Args:
            drawn: ``(1, X', Y', Z')`` on the coarse grid.
            image: the scan on its own grid, ``(1, X, Y, Z)``, background 0, a CT cut to its window.
            prepared: the scan that the network saw, ``(1, X', Y', Z')`` in [0, 1].
            brain: mask on the coarse grid.
            score: anomaly score on the coarse grid; None where there is none.
            intact: the scan without its anomaly, in its own contrast, on the coarse grid; None where there is none.

        Returns:
            ``(1, X, Y, Z)``, on the scale of what was drawn, not negative, 0 outside of the brain.
        """
        inside = on_grid(brain, image) > 0.5
        found = torch.zeros(image.shape, device=image.device)
        if bool(inside.any()) and bool((brain > 0.5).any()):
            start, end = generate_spatial_bounding_box(inside.as_tensor())
            crop = SpatialCrop(roi_start=start, roi_end=end)
            within = crop(inside).as_tensor()
            scan = (crop(without_header(image)) * prepared_factor(image, prepared, brain)).clamp(0.0, 1.0)
            terms = self._terms(drawn, prepared, brain, 1.0 - doubt(prepared, brain, score, intact))
            found[(slice(None), *map(slice, start, end))] = self._drawn(terms, scan) * within
        return MetaTensor(found, meta=dict(image.meta))

    def _drawn(self, terms: MetaTensor, scan: MetaTensor) -> torch.Tensor:
        """The polynomial of the scan; its coefficients are interpolated one by one, to save memory."""
        values, total = scan.as_tensor(), 0.0
        for term in reversed(terms.split(1)):  # Horner's scheme
            total = total * values + on_grid(MetaTensor(term.as_tensor(), affine=terms.affine), scan).as_tensor()
        return total.clamp(min=0.0)

    def _terms(self, drawn: MetaTensor, prepared: MetaTensor, brain: MetaTensor, sure: torch.Tensor) -> MetaTensor:
        """Coefficients of the scan's powers, ``(degree + 1, X', Y', Z')``; the constant has what is left over, too."""
        spacing = affine_to_spacing(prepared.affine).tolist()
        scan, mask = prepared.as_tensor()[None].float(), (brain.as_tensor()[None] > 0.5).float()
        powers = torch.cat([scan**power for power in range(self.degree + 1)], dim=1)
        basis = _smooth(powers * mask, self.width, spacing)  # the drawn brain fades at its surface, too
        sure = mask * sure[None]
        target, trust = drawn.as_tensor()[None].float(), sure
        for _ in range(self.turns):
            terms, misfit = self._fit(basis, target, trust, mask, spacing)
            trust = self._trust(misfit, mask, spacing) * sure
        terms = terms * trust
        terms[:, :1] += target - trust * (target - misfit)
        return MetaTensor(terms[0], affine=prepared.affine)

    def _trust(self, misfit: torch.Tensor, mask: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
        """How far the scan explains what was drawn, in [0, 1]."""
        averaged = _smooth(misfit, self.patch, spacing) / _smooth(mask, self.patch, spacing).clamp(min=1e-3)
        limit = self.unusual * 1.4826 * float(averaged[mask > 0].abs().median()) + 1e-6
        return (1.0 - (averaged / limit) ** 2).clamp(min=0.0) ** 2 * mask

    def _fit(
        self,
        basis: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        mask: torch.Tensor,
        spacing: Sequence[float],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients of the basis around every voxel of the mask, ``(1, degree + 1, ...)``, and what they leave of the target."""
        size = self.degree + 1
        pairs = list(combinations_with_replacement(range(size), 2))
        products = [basis[:, i : i + 1] * basis[:, j : j + 1] for i, j in pairs] + list(
            (basis * target).split(1, dim=1)
        )
        means = _smooth(torch.cat([weight * product for product in products], dim=1), self.reach, spacing)
        means = (means / _smooth(weight, self.reach, spacing).clamp(min=1e-6))[:, :, mask[0, 0] > 0][0].T
        matrix = means.new_zeros(len(means), size, size)
        for number, (i, j) in enumerate(pairs):
            matrix[:, i, j] = matrix[:, j, i] = means[:, number]
        matrix += torch.diag(torch.tensor([1e-6] + [self.ridge] * self.degree, device=means.device))
        found = torch.zeros_like(basis)
        found[:, :, mask[0, 0] > 0] = torch.linalg.solve(matrix, means[:, len(pairs) :]).T
        return found, (target - (found * basis).sum(dim=1, keepdim=True)) * mask


def _smooth(values: torch.Tensor, width: float, spacing: Sequence[float]) -> torch.Tensor:
    return GaussianFilter(3, [width / edge for edge in spacing], truncated=3.0)(values)


class FineDetaild(MapTransform):
    """Dictionary form of `FineDetail`: images on the working grid are replaced by finer ones on the grid of the scan.

    Args:
        keys: the images.
        image_key: the scan as read.
        prepared_key, brain_key: see `FineDetail`.
        modality_key: modality of the scan, which says whether it is a CT.
        score_key, intact_key: see `FineDetail`; they may be missing.
        window: HU, see `WindowCTd`.
        allow_missing_keys: leave out what is not there.
        detail: arguments of `FineDetail`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "original",
        prepared_key: str = "scan",
        brain_key: str = "brain",
        modality_key: str = "modality",
        score_key: str = "score",
        intact_key: str = "pred_intact",
        window: tuple[float, float] = (0.0, 80.0),
        allow_missing_keys: bool = False,
        **detail,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.detail = FineDetail(**detail)
        self.image_key = image_key
        self.prepared_key = prepared_key
        self.brain_key = brain_key
        self.modality_key = modality_key
        self.score_key = score_key
        self.intact_key = intact_key
        self.window = WindowCTd("image", window)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = self.window({"image": d[self.image_key], "modality": d[self.modality_key]})["image"]
            signs = (data.get(self.score_key), data.get(self.intact_key))
            d[key] = self.detail(d[key], image, d[self.prepared_key], d[self.brain_key], *signs)
        return d
