"""The class of ``local_contrast.yaml``."""

from monai.transforms import GaussianSmooth
from scripts.methods import Method


class LocalContrast(Method):
    """The difference between a scan and a smooth copy of it, inside the brain.

    Args:
        width: standard deviation of the Gaussian, voxels.
        priors: what the method takes for granted; the comparison prints it.
    """

    def __init__(self, width, priors=()):
        super().__init__((), priors)
        self.smooth = GaussianSmooth(width)

    def maps(self, case):
        """Called with a prepared scan: ``scan``, ``mirrored`` and ``brain``, each ``(1, X, Y, Z)``, and ``modality``."""
        scan, brain = case["scan"], case["brain"] > 0
        surroundings = self.smooth(scan) / self.smooth(brain.float()).clamp(min=1e-3)
        return {"score": (scan - surroundings).abs() * brain}
