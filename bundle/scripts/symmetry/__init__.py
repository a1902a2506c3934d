"""The mirrored partner of a scan, and the plane that it is mirrored at."""

from .estimate import EstimateMirrord, estimate_mirror, reflection, symmetry
from .mirror import Mirror, Mirrord, mid_plane_reflection
from .one_sided import RandOneSided, RandOneSidedd

__all__ = [
    "EstimateMirrord",
    "Mirror",
    "Mirrord",
    "RandOneSided",
    "RandOneSidedd",
    "estimate_mirror",
    "mid_plane_reflection",
    "reflection",
    "symmetry",
]
