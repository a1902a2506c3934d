"""The losses of UNA (paper Eq. 7-9)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..fluid import LESION_THRESHOLD

__all__ = ["ContrastLoss", "ReconstructionLoss", "UNALoss"]


class ReconstructionLoss(nn.Module):
    """Weighted L1 of intensities and of their gradients (Eq. 7), averaged over all voxels of the batch.

    The weight k is ``1 + lambda_p P A`` where the healthy truth is known (d = 0), and ``1 - P`` in the lesions of a real scan
    with disease (d = 1), which have no truth. A, 1 in the paper, lets a small lesion count more in each of its voxels, see
    `LesionAttention`. A finite difference between two voxels takes the smaller of
    their weights, so that a lesion voxel of a diseased scan is supervised through no neighbour either.

    Args:
        lambda_grad: weight of the gradient term [code: 1].
        lambda_p: attention to the lesion [paper: 1].
    """

    def __init__(self, lambda_grad: float = 1.0, lambda_p: float = 1.0) -> None:
        super().__init__()
        self.lambda_grad = lambda_grad
        self.lambda_p = lambda_p

    def forward(
        self,
        pred: torch.Tensor,
        healthy: torch.Tensor,
        anomaly: torch.Tensor,
        diseased: torch.Tensor,
        attention: torch.Tensor | float = 1.0,
    ) -> torch.Tensor:
        """
        Args:
            pred: ``(B, 1, X, Y, Z)`` reconstruction.
            healthy: its target, same shape.
            anomaly: lesion probability P in [0, 1], same shape.
            diseased: d, 1 in the lesions of real scans with disease, same shape; see `UnknownTruthd`.
            attention: A, not negative, same shape.
        """
        d = diseased.to(anomaly.dtype)
        k = 1.0 + (self.lambda_p * (1.0 - d) * attention - d) * anomaly
        error = pred - healthy
        loss = (k * error.abs()).mean()
        for axis in (2, 3, 4):
            n = error.shape[axis] - 1
            edge_weight = torch.minimum(k.narrow(axis, 0, n), k.narrow(axis, 1, n))
            loss = loss + self.lambda_grad * (edge_weight * error.diff(dim=axis).abs()).sum() / error.numel()
        return loss


class ContrastLoss(nn.Module):
    """Intra-subject contrast (Eq. 8): the reconstruction of a lesion should agree with the healthy other side rather
    than with the lesion.

    Over the lesion voxels whose mirror is healthy, ``-log(S(mirrored, alpha) / (S(mirrored, beta) + S(image, gamma)))``
    with ``S(x, t)`` the mean of ``exp(pred x / t)`` (the paper's integrals; their common volume cancels). Eq. 7 is an
    average over all voxels here, so each sample's term is multiplied by the share of voxels it speaks for: as an
    unscaled log-ratio it would outweigh Eq. 7 inside a small lesion by orders of magnitude.

    Args:
        alpha, beta, gamma: temperatures [code: 1].
        lesion_threshold: probability above which a voxel is lesion [code: 0.2].
    """

    def __init__(
        self, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0, lesion_threshold: float = LESION_THRESHOLD
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.lesion_threshold = lesion_threshold

    def forward(
        self,
        pred: torch.Tensor,
        image: torch.Tensor,
        mirrored: torch.Tensor,
        anomaly: torch.Tensor,
        mirrored_anomaly: torch.Tensor,
    ) -> torch.Tensor:
        """
        Args:
            pred: ``(B, 1, X, Y, Z)`` reconstruction.
            image: input scan. mirrored: its mirrored partner.
            anomaly: lesion probability. mirrored_anomaly: its mirrored partner.

        Returns:
            mean over the batch; 0 for a sample without such voxels.
        """
        region = ((anomaly > self.lesion_threshold) & (mirrored_anomaly <= self.lesion_threshold)).flatten(1)
        share = region.float().mean(1)
        # Every sample has some region, so that no logarithm is infinite; where there is none, the share is 0. Nothing waits for
        # the device.
        region = region | (share == 0)[:, None]
        count = region.sum(1).log()

        def mean_exp(values: torch.Tensor, temperature: float) -> torch.Tensor:
            return (pred * values / temperature).flatten(1).masked_fill(~region, -torch.inf).logsumexp(1) - count

        agree = mean_exp(mirrored, self.alpha)
        against = torch.logaddexp(mean_exp(mirrored, self.beta), mean_exp(image, self.gamma))
        return ((against - agree) * share).mean()


class UNALoss(nn.Module):
    """L = L_recon + lambda_contrast L_contrast (Eq. 9) of the healthy T1w, and lambda_intact L_recon of the intact scan.

    The second term is not in the paper. Outside of the lesion its truth is the scan itself, whatever the contrast: every scan
    supervises it, a diseased one too.

    Args:
        reconstruction: Eq. 7.
        contrast: Eq. 8.
        lambda_contrast: weight of Eq. 8 [paper: 2]; 0 leaves it out.
        lambda_intact: weight of the intact scan [paper: 0]; 0 leaves it out.
    """

    def __init__(
        self,
        reconstruction: ReconstructionLoss,
        contrast: ContrastLoss,
        lambda_contrast: float = 2.0,
        lambda_intact: float = 1.0,
    ) -> None:
        super().__init__()
        self.reconstruction = reconstruction
        self.contrast = contrast
        self.lambda_contrast = lambda_contrast
        self.lambda_intact = lambda_intact

    def forward(self, pred: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: ``(B, 2, X, Y, Z)`` healthy T1w and intact scan.
            target: items ``healthy``, ``intact``, ``anomaly``, ``attention``, ``mirrored_anomaly``, ``scan``, ``mirrored``,
                ``brain`` and ``diseased``, each ``(B, 1, X, Y, Z)``.
        """
        healthy, intact = pred[:, :1], pred[:, 1:2]
        weighing = (target["anomaly"], target["diseased"], target["attention"])
        loss = self.reconstruction(healthy, target["healthy"], *weighing)
        if self.lambda_contrast:
            loss = loss + self.lambda_contrast * self.contrast(
                healthy, target["scan"], target["mirrored"], target["anomaly"], target["mirrored_anomaly"]
            )
        if self.lambda_intact:
            loss = loss + self.lambda_intact * self.reconstruction(intact, target["intact"], *weighing)
        return loss
