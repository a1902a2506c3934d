"""The mirrored partner of a scan, and the plane that it is mirrored at."""

from .estimate import EstimateMirrord, estimate_mirror, reflection, symmetry
from .mirror import Mirror, Mirrord, mid_plane_reflection

__all__ = [
    "EstimateMirrord",
    "Mirror",
    "Mirrord",
    "estimate_mirror",
    "mid_plane_reflection",
    "reflection",
    "symmetry",
]
