"""The mirrored partner of a scan."""

from .mirror import Mirror, Mirrord, mid_plane_reflection

__all__ = ["Mirror", "Mirrord", "mid_plane_reflection"]
