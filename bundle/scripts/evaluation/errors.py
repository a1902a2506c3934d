"""Reconstruction errors over regions of the brain (paper Table 1): L1, PSNR and SSIM over F, H and D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import convert_to_tensor

from ..fluid import LESION_THRESHOLD
from ..similarity import ssim_map, to_scale_of

__all__ = ["COLUMNS", "RegionErrors", "psnr_in_lesion", "region_errors"]

REGIONS = ("F", "H", "D")
MEASURES = ("L1", "PSNR", "SSIM")
AVERAGES = ("region", "volume")
COLUMNS = tuple(f"{measure}_{region}_{average}" for average in AVERAGES for measure in MEASURES for region in REGIONS)

SSIM_WINDOW, SSIM_SIGMA = 11, 5.0  # of the paper's code


def region_errors(
    pred: torch.Tensor,
    healthy: torch.Tensor,
    brain: torch.Tensor,
    lesion: torch.Tensor,
    columns: Sequence[str] = COLUMNS,
) -> torch.Tensor:
    """Errors of one reconstruction over the full brain F, its healthy part H and its diseased part D.

    ``region`` columns average over the voxels of the region. ``volume`` columns are the paper's: both images are set to
    0 outside the region and the error is averaged over the whole volume, which makes errors of small regions tiny.
    The PSNR's peak is the maximum of the target.

    Args:
        pred, healthy: ``(1, X, Y, Z)`` reconstruction and truth, [0, 1].
        brain, lesion: boolean masks of the same shape.
        columns: subset of `COLUMNS`.

    Returns:
        vector of the values of `columns`; NaN for regions without voxels.
    """
    regions = {"F": brain, "H": brain & ~lesion, "D": brain & lesion}
    peak = healthy.max()
    full_ssim = (
        ssim_map(pred, healthy, SSIM_WINDOW, SSIM_SIGMA)
        if any(c.startswith("SSIM") and c.endswith("region") for c in columns)
        else None
    )

    def value(column: str) -> torch.Tensor:
        measure, name, average = column.split("_")
        region = regions[name]
        if not region.any():
            return pred.new_tensor(float("nan"))
        if measure == "SSIM":
            return (
                full_ssim[region].mean()
                if average == "region"
                else ssim_map(pred * region, healthy * region, SSIM_WINDOW, SSIM_SIGMA).mean()
            )
        error = (pred - healthy)[region]
        count = region.sum() if average == "region" else region.numel()
        if measure == "L1":
            return error.abs().sum() / count
        return 20.0 * torch.log10(peak) - 10.0 * torch.log10(error.square().sum() / count)

    return torch.stack([value(column) for column in columns])


def psnr_in_lesion(filled: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor, lesion: torch.Tensor) -> float:
    """PSNR inside the lesion, dB, of any image put in its place, once one factor has brought it to the scale of the truth.

    Args:
        filled, healthy: ``(1, X, Y, Z)`` candidate and truth, [0, 1].
        brain, lesion: boolean masks of the same shape; the factor is fitted outside of the lesion.
    """
    filled, healthy = (convert_to_tensor(volume, track_meta=False) for volume in (filled, healthy))
    scaled = to_scale_of(filled, healthy, brain & ~lesion)
    return float(region_errors(scaled, healthy, brain, lesion, columns=["PSNR_D_region"]))


class RegionErrors(CumulativeIterationMetric):
    """`region_errors` of every case of an evaluation, accumulated over the batches and processes.

    Called with the reconstructions ``(B, 1, X, Y, Z)`` and a target of stacked channels (healthy, anomaly, brain).
    `aggregate` returns the mean over the cases of the columns asked for, leaving out cases without the region.

    Args:
        columns: subset of `COLUMNS` to aggregate; one column makes a scalar, fit to be a key metric.
        lesion_threshold: probability above which a voxel is lesion.
    """

    def __init__(self, columns: Sequence[str] = COLUMNS, lesion_threshold: float = LESION_THRESHOLD) -> None:
        super().__init__()
        self.columns = list(columns)
        self.lesion_threshold = lesion_threshold

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs) -> torch.Tensor:
        healthy, anomaly, brain = y.split(1, dim=1)
        return torch.stack(
            [
                region_errors(p, h, b > 0, a > self.lesion_threshold, self.columns)
                for p, h, b, a in zip(y_pred, healthy, brain, anomaly)
            ]
        )

    def aggregate(self) -> torch.Tensor:
        means = self.get_buffer().nanmean(dim=0)
        return means[0] if len(self.columns) == 1 else means
