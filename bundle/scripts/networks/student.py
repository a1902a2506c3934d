"""A student that has learned from its teacher on healthy slices alone, and disagrees on what it never saw."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, interpolate

__all__ = ["StudentTeacher"]


class StudentTeacher(nn.Module):
    """Per pixel, how far the features of a student are from those of its teacher, ``1 - cosine``, averaged over the levels.

    Args:
        teacher: see `FeatureExtractor`; it is frozen. The student has the same architecture and random weights.

    Shape:
        ``(B, 1, X, Y)`` to ``(B, 1, X, Y)``. Its mean is the loss of the training.

    References:
        G. Wang et al., Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC 2021.
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.student = copy.deepcopy(teacher)
        for module in self.student.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # the extractor's .01 needs more steps than a short training has
        self.teacher = teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> StudentTeacher:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            taught = self.teacher(image)
        levels = [
            interpolate(
                1.0 - cosine_similarity(said, heard, dim=1)[:, None],
                image.shape[2:],
                mode="bilinear",
                align_corners=False,
            )
            for said, heard in zip(self.student(image), taught, strict=True)
        ]
        return torch.stack(levels).mean(dim=0)
