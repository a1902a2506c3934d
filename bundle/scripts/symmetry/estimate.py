"""Find the mid-sagittal plane of a brain, and with it the mirrored partner of every point."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from scipy.optimize import minimize
from torch.nn.functional import grid_sample

__all__ = ["EstimateMirrord", "estimate_mirror", "reflection", "symmetry"]

# Angles beyond 30 degrees from the scanner's axes do not occur in a head coil; at 20 degrees a third is left to spare.
COARSE_ANGLES = np.deg2rad(np.arange(-30, 31, 6))
COARSE_SHIFTS = np.arange(-12.0, 13.0, 4.0)  # mm, of the plane from the middle of the brain
COARSE_POINTS, FINE_POINTS = 4_000, 80_000
OUTLIER = 0.15  # difference of two partners, as a share of the brightest tissue, at which their weight has halved


def reflection(normal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """4x4 reflection on RAS mm across the plane through `point` with the unit `normal`."""
    matrix = np.eye(4)
    matrix[:3, :3] -= 2.0 * np.outer(normal, normal)
    matrix[:3, 3] = 2.0 * np.dot(normal, point) * normal
    return matrix


def _normal(yaw: float, roll: float) -> np.ndarray:
    """Unit normal of a sagittal plane, turned about the vertical and then about the front-back axis."""
    return np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw), np.cos(yaw) * np.sin(roll)])


class _Asymmetry:
    """How much points of a brain differ from their partners, robustly: a lesion counts as a bounded difference."""

    def __init__(self, image: MetaTensor, brain: torch.Tensor, points: int) -> None:
        volume = convert_to_tensor(image, track_meta=False).float()
        inside = convert_to_tensor(brain, track_meta=False)[0] > 0
        voxels = inside.nonzero()
        voxels = voxels[torch.linspace(0, len(voxels) - 1, min(points, len(voxels))).long()].double()
        self.affine = image.affine.double().cpu()
        self.world = voxels @ self.affine[:3, :3].T + self.affine[:3, 3]
        self.size = torch.tensor(volume.shape[1:], dtype=torch.float64)
        scale = torch.quantile(volume[0][inside][:: max(1, int(inside.sum()) // 100_000)], 0.99).clamp(min=1e-6)
        self.volume = (torch.where(inside, volume[0], 0.0) / scale)[None, None]
        self.values = self.sample(self.world)

    def sample(self, world: torch.Tensor) -> torch.Tensor:
        inverse = torch.linalg.inv(self.affine)
        voxels = world @ inverse[:3, :3].T + inverse[:3, 3]
        grid = (2.0 * voxels / (self.size - 1.0) - 1.0).flip(-1).float()
        return grid_sample(self.volume, grid[None, None, None], align_corners=True)[0, 0, 0, 0]

    def __call__(self, matrix: np.ndarray) -> float:
        m = torch.as_tensor(matrix)
        squared = (self.sample(self.world @ m[:3, :3].T + m[:3, 3]) - self.values) ** 2
        return float((squared / (squared + OUTLIER**2)).mean())


def symmetry(image: MetaTensor, brain: torch.Tensor, matrix: np.ndarray) -> float:
    """Share of the brain that agrees with its partner, in [0, 1]: 1 minus the mean robust difference."""
    return 1.0 - _Asymmetry(image, brain, FINE_POINTS)(matrix)


def estimate_mirror(image: MetaTensor, brain: torch.Tensor) -> np.ndarray:
    """The reflection across the mid-sagittal plane, 4x4 on RAS mm.

    All planes within 30 degrees of the sagittal direction and 12 mm of the middle of the brain are tried on a coarse grid,
    the best ones are refined. The difference of two partners is bounded, so that a lesion on one side, which has no
    partner, does not pull the plane.

    Args:
        image: ``(1, X, Y, Z)`` scan, any contrast, with an affine to RAS mm.
        brain: ``(1, X, Y, Z)`` mask of the brain, not empty.
    """
    coarse, fine = (_Asymmetry(image, brain, points) for points in (COARSE_POINTS, FINE_POINTS))
    middle = fine.world.mean(dim=0).numpy()

    def plane(parameters) -> np.ndarray:
        yaw, roll, shift = parameters
        normal = _normal(yaw, roll)
        return reflection(normal, middle + shift * normal)

    tried = sorted(product(COARSE_ANGLES, COARSE_ANGLES, COARSE_SHIFTS), key=lambda p: coarse(plane(p)))
    best = None
    for start in tried[:3]:
        simplex = np.array([start, *(np.array(start) + step for step in np.diag([0.06, 0.06, 3.0]))])
        options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6}
        found = minimize(lambda p: coarse(plane(p)), start, method="Nelder-Mead", options=options)
        best = found if best is None or found.fun < best.fun else best
    simplex = np.array([best.x, *(best.x + step for step in np.diag([0.02, 0.02, 1.0]))])
    options = {"initial_simplex": simplex, "xatol": 2e-4, "fatol": 1e-6}
    return plane(minimize(lambda p: fine(plane(p)), best.x, method="Nelder-Mead", options=options).x)


class EstimateMirrord(MapTransform):
    """Add ``mirror_transform``, as `estimate_mirror` finds it, unless the data has one.

    Args:
        keys: the scan; of several, the first that the data has.
        brain_key: mask of the brain, or a label map; without one, the scan is brain-extracted.
        transform_key: where the matrix goes.
        allow_missing_keys: leave data without a scan alone.
    """

    def __init__(
        self,
        keys,
        brain_key: str = "brain",
        transform_key: str = "mirror_transform",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.brain_key = brain_key
        self.transform_key = transform_key

    def __call__(self, data):
        d = dict(data)
        key = None if self.transform_key in d else next(self.key_iterator(d), None)
        if key is not None:
            d[self.transform_key] = estimate_mirror(d[key], d.get(self.brain_key, d[key]))
        return d
