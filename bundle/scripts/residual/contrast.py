"""What the healthy brain would look like in the contrast of the scan: the reconstruction is T1w, the scan may be anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import sparse
from scipy.ndimage import (
    affine_transform,
    binary_dilation,
    binary_opening,
    gaussian_filter,
    gaussian_filter1d,
    generate_binary_structure,
)
from scipy.sparse.linalg import cg
from skimage.measure import block_reduce
from sklearn.isotonic import IsotonicRegression
from sklearn.preprocessing import PolynomialFeatures, scale

__all__ = ["MatchContrast", "MatchContrastd"]

CROSS = generate_binary_structure(3, 1)


class MatchContrast(Transform):
    """Predict the healthy scan from the healthy T1w, as physics has it: ``scan = gain(x) curve(healthy T1w)``.

    The curve says what the sequence makes of a tissue; the gain is that of the coils. Both are fitted to the scan itself, in
    turns. A lesion must bend neither. The curve takes each voxel the less the further the scan lies from its prediction (Tukey's
    biweight). The gain is found from its slopes, as Horn finds the light of a scene: a coil's sensitivity changes slowly from cell
    to cell, the border of a lesion is steep. Steep slopes are left out, and the gain is integrated over what remains (a sparse
    least squares problem), so that the step at a border does not enter, however large the lesion.

    The border of a large lesion may be soft, and then its slopes are those of a coil. So the gain is found twice. Where the first
    one leaves the scan far from its prediction, in more than a few cells together, no slope is believed the second time. There the
    gain goes on as it comes from around. What is left tells whether the coil is uneven. Such a coil gets a loose gain. It is found
    without the marked cells, too, and those that it explains all the same are marked no longer.

    Args:
        monotone: whether the curve rises with the T1w, as that of another T1w sequence does.
        cell: edge of the cells in which the gain is found, mm.
        steepest: slope that no coil reaches, of the logarithm of the gain, per mm.
        hold: weight of a gain that does not change, against what the scan says.
        bend: weight of a gain whose slope does not change. It is the length that tells a coil from a lesion: a gain that repeats
            after a length is held back by 1 / (1 + `bend` k²), k being 2 pi `cell` over the length, so that 10 leaves 3/10 of what
            has 5 cm, and 8/10 of what has 16 cm.
        uneven: of so stiff a gain's logarithm, the standard deviation outside of marked cells that no quadratic function of the
            place explains: below the first value the coil is even, above the second it is very uneven. Even coils are nearly
            quadratic over a head, and a stiff gain takes little of a faint lesion. The scan of an uneven coil is predicted anew
            with `uneven_bend`. Between the two values both predictions count by shares: no scan lies where little decides much.
        severe: of that unevenness, times the share of marked cells that a loose gain of the whole brain explains. Between them a
            third prediction takes over, with that gain. So strong a field marks healthy tissue. A lesion has an edge, which no gain
            explains; one that is soft everywhere is taken for a field.
        uneven_bend: `bend` for such a scan, whose gain changes within a few centimetres, as the severe fields of Table B.1 do.
        far: from its prediction lies a scan whose difference, averaged over a voxel's neighbours, is this many robust standard
            deviations of all differences. A cell is marked where more than half of it is that far, and so are its neighbours.
        iterations: turns.
        bins: of T1w intensity, in which the curve is found.

    References:
        B. K. P. Horn, Determining lightness from an image, Computer Graphics and Image Processing 3, 1974.
        P. J. Rousseeuw, A. M. Leroy, Robust Regression and Outlier Detection, 1987 (biweight, median absolute deviation).
    """

    def __init__(
        self,
        monotone: bool = False,
        cell: float = 4.0,
        steepest: float = 0.03,
        hold: float = 0.01,
        bend: float = 10.0,
        uneven: Sequence[float] = (0.013, 0.018),
        severe: Sequence[float] = (0.013, 0.0138),
        uneven_bend: float = 0.005,
        far: float = 2.8,
        iterations: int = 8,
        bins: int = 64,
    ) -> None:
        self.monotone = monotone
        self.cell = cell
        self.steepest = steepest
        self.hold = hold
        self.bend = bend
        self.uneven = tuple(uneven)
        self.severe = tuple(severe)
        self.uneven_bend = uneven_bend
        self.far = far
        self.iterations = iterations
        self.bins = bins

    def __call__(self, healthy: torch.Tensor, image: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """
        Args:
            healthy: ``(1, X, Y, Z)`` healthy T1w.
            image: the scan, any contrast, same shape; a MetaTensor whose affine gives the voxel size (else 1 mm).
            brain: mask of the same shape.

        Returns:
            the scan as it would be without disease; 0 outside the brain.
        """
        t1, scan, mask = (
            convert_to_tensor(v, track_meta=False).cpu().numpy()[0].astype(np.float64) for v in (healthy, image, brain)
        )
        inside = mask > 0
        if not inside.any():
            return convert_to_dst_type(np.zeros_like(scan)[None], healthy, dtype=torch.float32)[0]
        spacing = affine_to_spacing(image.affine).numpy() if isinstance(image, MetaTensor) else np.ones(3)
        cells = _Cells(inside, np.maximum(np.rint(self.cell / spacing).astype(int), 1), spacing)
        marked = np.zeros(cells.number, dtype=bool)
        expected, stiff_gain = self._fit(t1, scan, cells, self.bend, np.zeros(cells.number), marked)
        log_gain = stiff_gain
        marked = cells.marked(scan - expected, self.far)
        if marked.any():
            expected, log_gain = self._fit(t1, scan, cells, self.bend, stiff_gain, marked)
        beside = cells.unevenness(log_gain, ~marked)
        loose = float(np.interp(beside, self.uneven, (0.0, 1.0)))
        severe, everywhere = 0.0, expected
        if beside > self.severe[0]:
            # A very uneven coil marks so much healthy tissue that its gain cannot be told beside it. A loose gain explains such
            # marks; of a lesion, which has an edge, it leaves some.
            everywhere, _ = self._fit(t1, scan, cells, self.uneven_bend, stiff_gain, np.zeros_like(marked))
            left = (cells.marked(scan - everywhere, self.far) & marked).sum() / max(1, marked.sum())
            severe = float(np.interp(beside * (1.0 - left), self.severe, (0.0, 1.0)))
        if loose > 0.0 and severe < 1.0:
            # An uneven coil marks healthy cells. What the loose gain of the others explains is marked no longer.
            explained, log_gain = self._fit(t1, scan, cells, self.uneven_bend, log_gain, marked)
            marked = marked & cells.marked(scan - explained, self.far)
            explained, _ = self._fit(t1, scan, cells, self.uneven_bend, log_gain, marked)
            expected = (1.0 - loose) * expected + loose * explained
        expected = (1.0 - severe) * expected + severe * everywhere
        return convert_to_dst_type((expected * inside)[None], healthy, dtype=torch.float32)[0].clamp(min=0.0)

    def _fit(
        self, t1: np.ndarray, scan: np.ndarray, cells: _Cells, bend: float, start: np.ndarray, marked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The scan as gain and curve predict it, and the logarithm of the gain in each cell.

        Args:
            t1, scan: ``(X, Y, Z)``.
            cells: of the brain.
            bend: see the class.
            start: logarithm of the gain to begin with.
            marked: cells that say nothing of the gain.
        """
        inside = cells.inside
        penalty = self.hold * cells.laplacian + bend * cells.laplacian @ cells.laplacian
        weight, log_gain = inside.astype(np.float64), start
        gain = np.exp(cells.to_voxels(log_gain))
        for _ in range(self.iterations):
            curve = np.where(inside, self._curve(t1[inside], (scan / gain)[inside], weight[inside])(t1), 0.0)
            weight = np.where(inside, self._biweight(scan / gain - curve, inside), 0.0)
            log_gain = self._gain(cells, scan, curve, log_gain, penalty, marked)
            gain = np.exp(cells.to_voxels(log_gain))
        return gain * curve, log_gain

    def _curve(self, t1: np.ndarray, scan: np.ndarray, weight: np.ndarray):
        """Weighted mean of the scan over T1w intensity, smoothed along it."""
        low, high = np.quantile(t1, [0.002, 0.998])
        edges = np.linspace(low, max(high, low + 1e-6), self.bins + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        index = np.clip(np.searchsorted(edges, t1) - 1, 0, self.bins - 1)
        count = np.bincount(index, weight, minlength=self.bins)
        total = np.bincount(index, weight * scan, minlength=self.bins)
        if self.monotone:
            counted = count > 0
            rising = IsotonicRegression().fit(centres[counted], total[counted] / count[counted], count[counted])
            total = count * np.interp(centres, rising.X_thresholds_, rising.y_thresholds_)
        total, count = (gaussian_filter1d(values, 1.5, mode="nearest") for values in (total, count))
        smooth, known = total / np.maximum(count, 1e-9), count > 1e-6
        return lambda values: np.interp(values, centres[known], smooth[known])

    @staticmethod
    def _biweight(residual: np.ndarray, inside: np.ndarray) -> np.ndarray:
        width = 4.685 * 1.4826 * np.median(np.abs(residual[inside])) + 1e-6
        return np.clip(1.0 - (residual / width) ** 2, 0.0, None) ** 2

    def _gain(
        self,
        cells: _Cells,
        scan: np.ndarray,
        curve: np.ndarray,
        before: np.ndarray,
        penalty: sparse.csr_matrix,
        marked: np.ndarray,
    ) -> np.ndarray:
        """Logarithm of the gain in each cell.

        Args:
            cells: of the brain.
            scan, curve: the scan, and the scan as the curve predicts it without a gain.
            before: what the turn before found.
            penalty: of a gain that changes and of one that bends, ``(cells, cells)``.
            marked: cells that say nothing of it.
        """
        # Fluid is dark in many sequences: its ratio is noise.
        tissue = cells.inside & (curve > 0.2 * np.percentile(scan[cells.inside], 95))
        count, seen, predicted = (cells.sum(values * tissue) for values in (np.ones_like(scan), scan, curve))
        known = (count > 0.3 * cells.size) & ~marked
        if not known.any():
            return before
        ratio = np.where(known, np.log(np.maximum(seen, 1e-6) / np.maximum(predicted, 1e-6)), 0.0).clip(-2.0, 2.0)
        slope, limit = cells.step @ ratio, self.steepest * cells.distance
        both = (abs(cells.step) @ known) == 2
        believed = both * np.clip(1.0 - ((slope - cells.step @ before) / limit) ** 2, 0.0, None)
        believed *= np.clip(1.0 - (slope / (2.0 * limit)) ** 2, 0.0, None)
        matrix = cells.step.T @ sparse.diags(believed) @ cells.step
        matrix += penalty
        matrix += 1e-6 * sparse.eye(cells.number)
        gain, _ = cg(matrix, cells.step.T @ (believed * slope), x0=before, rtol=1e-3, maxiter=200)
        return gain + np.median((ratio - gain)[known])


class _Cells:
    """The cells of a coarse grid that hold some of the brain, and the steps between neighbours.

    Attributes:
        inside: mask of the brain, on the fine grid.
        number: of cells.
        size: of a cell, voxels.
        step: sparse ``(steps, cells)``, from values to their differences along each step.
        distance: of each step, mm.
        laplacian: of the grid, sparse ``(cells, cells)``.
    """

    def __init__(self, inside: np.ndarray, factors: np.ndarray, spacing: np.ndarray) -> None:
        self.inside = inside
        self.factors = factors
        self.size = int(np.prod(factors))
        self.within = self._blocks(inside) > 0
        self.number = int(self.within.sum())
        index = np.full(self.within.shape, -1)
        index[self.within] = np.arange(self.number)
        starts, ends, distances = [], [], []
        for axis in range(3):
            first, second = (np.take(index, range(k, index.shape[axis] - 1 + k), axis=axis) for k in (0, 1))
            pairs = (first >= 0) & (second >= 0)
            starts.append(first[pairs])
            ends.append(second[pairs])
            distances.append(np.full(int(pairs.sum()), factors[axis] * spacing[axis]))
        start, end, self.distance = (np.concatenate(values) for values in (starts, ends, distances))
        steps = np.arange(len(start))
        entries = (np.repeat([-1.0, 1.0], len(start)), (np.tile(steps, 2), np.concatenate([start, end])))
        self.step = sparse.csr_matrix(entries, shape=(len(start), self.number))
        self.laplacian = self.step.T @ self.step

    def unevenness(self, values: np.ndarray, counted: np.ndarray) -> float:
        """Standard deviation of what is left of the values when a quadratic function of the place is taken away.

        Args:
            values: of the cells.
            counted: cells to look at, bool.
        """
        if not counted.any():
            return 0.0
        place = PolynomialFeatures(2).fit_transform(scale(np.argwhere(self.within)))[counted]
        explained, *_ = np.linalg.lstsq(place, values[counted], rcond=None)
        return float((values[counted] - place @ explained).std())

    def marked(self, difference: np.ndarray, far: float) -> np.ndarray:
        """Cells of which more than half lies far from what was predicted, in more than a few cells together, and two cells around.

        Args:
            difference: of scan and prediction, ``(X, Y, Z)``.
            far: robust standard deviations, see `MatchContrast`.

        Returns:
            bool, a value a cell.
        """
        inside = self.inside.astype(np.float64)
        averaged = gaussian_filter(difference * inside, 1.0) / np.maximum(gaussian_filter(inside, 1.0), 0.3)
        limit = far * 1.4826 * np.median(np.abs(difference[self.inside])) + 1e-6
        share = self.sum((np.abs(averaged) > limit) & self.inside) / np.maximum(self.sum(inside), 1.0)
        cells = np.zeros(self.within.shape, dtype=bool)
        cells[self.within] = share > 0.5
        return binary_dilation(binary_opening(cells, CROSS), CROSS, 2)[self.within]

    def _blocks(self, values: np.ndarray) -> np.ndarray:
        return block_reduce(values.astype(np.float64), tuple(self.factors), np.sum)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of the voxels in each cell."""
        return self._blocks(values)[self.within]

    def to_voxels(self, values: np.ndarray) -> np.ndarray:
        """The values of the cells, smoothed by one cell and interpolated to every voxel."""
        full = np.zeros(self.within.shape)
        full[self.within] = values
        share = gaussian_filter(self.within.astype(np.float64), 1.0)
        smooth = gaussian_filter(full, 1.0) / np.maximum(share, 1e-6)
        step, offset = 1.0 / self.factors, 0.5 / self.factors - 0.5
        return affine_transform(smooth, step, offset, output_shape=self.inside.shape, order=1, mode="nearest")


class MatchContrastd(MapTransform):
    """Dictionary form of `MatchContrast`. The curve of a T1w is monotone.

    Args:
        keys: one key, the reconstruction.
        image_key: the scan.
        brain_key: brain mask.
        modality_key: modality of the scan.
        expected_key: where the predicted healthy scan goes.
        match: further arguments of `MatchContrast`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        brain_key: str = "brain",
        modality_key: str = "modality",
        expected_key: str = "expected",
        **match,
    ) -> None:
        super().__init__(keys)
        self.match = match
        self.image_key = image_key
        self.brain_key = brain_key
        self.modality_key = modality_key
        self.expected_key = expected_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        modality = str(data[self.modality_key])
        match = MatchContrast(monotone=modality.startswith("t1"), **self.match)
        volumes = (data[key] for key in (self.keys[0], self.image_key, self.brain_key))
        return {**data, self.expected_key: match(*volumes)}
