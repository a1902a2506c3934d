"""Networks that MONAI does not have."""

from .blending import BlendingUNet

__all__ = ["BlendingUNet"]
