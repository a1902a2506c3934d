"""Regions that take up room: ventricles that widen or shrink, lesions that push the tissue around them.

A region moves tissue by a velocity field that points away from it, the gradient of its blurred mask. A field that stays the same
over a unit of time gives a deformation without folds (scaling and squaring, Arsigny et al. 2006; MONAI's `DVF2DDF`).
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.networks.blocks import DVF2DDF, Warp
from monai.transforms import RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep

from ..blur import gaussian_blur
from ..fluid import deeper_than
from ..labels import LabelTable
from ..randomness import RandDictionaryTransform

# MONAI's Warp says at every start which of its two ways it takes; both give the same.
warnings.filterwarnings("ignore", message="monai.networks.blocks.Warp: Using PyTorch native grid_sample")

__all__ = ["RandExpansion", "RandExpansiond", "RandSulcid", "RandVentriclesd", "expansion_field"]


def expansion_field(
    region: torch.Tensor, amount: float, scale: float, asymmetry: float = 0.0, squarings: int = 5
) -> torch.Tensor:
    """Where to sample a volume so that a region in it grows.

    Args:
        region: ``(1, X, Y, Z)``, 0 to 1.
        amount: voxels by which the tissue moves at most; a negative one lets the region shrink.
        scale: voxels, standard deviation of the blur: how far away the region is felt.
        asymmetry: share by which the first half of the first axis moves more, and the second half less, -1 to 1.
        squarings: of the integration; 2 to their power is the number of its steps.

    Returns:
        ``(1, 3, X, Y, Z)`` displacement in voxels, as `monai.networks.blocks.Warp` takes it; 0 where the region is empty.
    """
    blurred = gaussian_blur(region.float(), scale)[0]
    velocity = torch.stack(torch.gradient(blurred))
    largest = velocity.square().sum(dim=0).sqrt().amax()
    if largest > 0:
        velocity = velocity * (amount / largest)
        if asymmetry:
            place = torch.arange(len(blurred), device=blurred.device, dtype=blurred.dtype)
            mass = blurred.sum(dim=(1, 2))
            middle = (place * mass).sum() / mass.sum()
            velocity = velocity * (1.0 - asymmetry * torch.tanh((place - middle) / scale))[:, None, None]
    return DVF2DDF(num_steps=squarings)(velocity[None])


class RandExpansion(RandomizableTransform):
    """Deform volumes so that a region grows or shrinks by a random amount.

    Args:
        amount: range in voxels, see `expansion_field`.
        scale: see `expansion_field`.
        asymmetry: largest share by which left and right differ.
        prob: probability of a deformation.

    Returns (of a call):
        ``(C, X, Y, Z)``, type and meta data of the input. Values outside of the volume are 0.
    """

    def __init__(self, amount: tuple[float, float], scale: float, asymmetry: float = 0.0, prob: float = 1.0) -> None:
        super().__init__(prob)
        self.amount = amount
        self.scale = scale
        self.asymmetry = asymmetry
        self.warps = {mode: Warp(mode, "zeros") for mode in ("bilinear", "nearest")}

    def randomize(self, data=None) -> None:
        super().randomize(None)
        self._amount = self.R.uniform(*self.amount)
        self._asymmetry = self.R.uniform(-self.asymmetry, self.asymmetry)

    def field(self, region: torch.Tensor) -> torch.Tensor:
        """The displacement of the current draw for a region, see `expansion_field`."""
        plain = convert_to_tensor(region, track_meta=False)
        return expansion_field(plain, self._amount, self.scale, self._asymmetry)

    def __call__(
        self, img: torch.Tensor, region: torch.Tensor, randomize: bool = True, mode: str = "bilinear", field=None
    ) -> torch.Tensor:
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        field = self.field(region) if field is None else field
        volume = convert_to_tensor(img, track_meta=False).float()
        return convert_to_dst_type(self.warps[mode](volume[None], field)[0], img)[0]


class RandExpansiond(RandDictionaryTransform):
    """Dictionary form of `RandExpansion`: one draw and one field for all keys.

    With an anomaly as the region it is mass effect: a lesion pushes the tissue around it in all volumes alike, so that what is
    displaced stays healthy; the anomaly, among the keys, grows.

    Args:
        keys: items on one grid.
        region_key: the item that grows.
        mode: interpolation of each key, "nearest" for label maps.
        allow_missing_keys: skip keys that the data does not have.
        expansion: arguments of `RandExpansion`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        region_key: str,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
        **expansion,
    ) -> None:
        super().__init__(keys, RandExpansion(**expansion), allow_missing_keys)
        self.region_key = region_key
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def region(self, item: torch.Tensor) -> torch.Tensor:
        """What grows, from the item that tells it."""
        return item

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.transform.randomize()
        if not self.transform._do_transform:
            return d
        region = self.region(d[self.region_key])
        field = self.transform.field(region)
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.transform(d[key], region, randomize=False, mode=mode, field=field)
        return d


class RandVentriclesd(RandExpansiond):
    """Widen or narrow the ventricles of a subject, and a little the deepest fissures, as age does.

    The ventricles are the CSF of a label map that lies deeper than `depth` below the surface of the brain, so that maps of
    three tissues will do.

    Args:
        keys: items on one grid.
        labels: label scheme, with the tissue ``csf``.
        depth: voxels.
        label_key: label map.
        expansion: further arguments of `RandExpansiond`.
    """

    def __init__(
        self, keys: KeysCollection, labels: LabelTable, depth: float, label_key: str = "label", **expansion
    ) -> None:
        super().__init__(keys, label_key, **expansion)
        self.labels = labels
        self.depth = depth

    def region(self, item: torch.Tensor) -> torch.Tensor:
        deep = deeper_than(convert_to_tensor(item, track_meta=False)[0] > 0, self.depth)
        return deep & convert_to_tensor(self.labels.mask(item, "csf"), track_meta=False)


class RandSulcid(RandExpansiond):
    """Widen the sulci of a random place on one side of a subject, as age does in some people, or a cistern of both sides.

    Sulci are the CSF of a label map in a range of depths below the surface of the brain: shallower CSF would push the surface
    outwards, deeper CSF is that of the ventricles. They widen around a random voxel of theirs, less and less with the distance (a
    Gaussian). Cisterns are places where much CSF lies together. A large cisterna magna is a variant of healthy people.

    Args:
        keys: items on one grid, the first axis from left to right.
        labels: label scheme, with the tissue ``csf``.
        depth: range in voxels.
        reach: range in voxels, standard deviation of that Gaussian.
        one_sided: nothing widens beyond the middle of the brain.
        crowding: a place is drawn by this power of the share of CSF around it: 0 for any sulcus, 4 for cisterns.
        label_key: label map.
        expansion: further arguments of `RandExpansiond`; its ``scale`` is what is around a place, too.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: LabelTable,
        depth: tuple[float, float],
        reach: tuple[float, float],
        one_sided: bool = True,
        crowding: float = 0.0,
        label_key: str = "label",
        **expansion,
    ) -> None:
        super().__init__(keys, label_key, **expansion)
        self.labels = labels
        self.depth = depth
        self.reach = reach
        self.one_sided = one_sided
        self.crowding = crowding

    def region(self, item: torch.Tensor) -> torch.Tensor:
        plain = convert_to_tensor(item, track_meta=False)
        brain = plain[0] > 0
        between = deeper_than(brain, self.depth[0]) & ~deeper_than(brain, self.depth[1])
        sulci = convert_to_tensor(self.labels.mask(item, "csf"), track_meta=False) & between
        voxels = sulci[0].nonzero()
        if not len(voxels):
            return sulci.float()
        middle = voxels[self._place(sulci, voxels)].float()
        reach = self.transform.R.uniform(*self.reach)
        axes = [torch.arange(size, device=plain.device, dtype=torch.float32) for size in plain.shape[1:]]
        weights = [torch.exp(-0.5 * ((axis - place) / reach) ** 2) for axis, place in zip(axes, middle)]
        if self.one_sided:  # it falls to 0 towards the middle plane of the brain
            plane = brain.nonzero()[:, 0].float().mean()
            weights[0] = weights[0] * ((axes[0] - plane) * torch.sign(middle[0] - plane) / reach).clamp(0.0, 1.0)
        weight = weights[0][:, None, None] * weights[1][None, :, None] * weights[2][None, None, :]
        return sulci * weight[None]

    def _place(self, sulci: torch.Tensor, voxels: torch.Tensor) -> int:
        """Which of the voxels is in the middle of what widens."""
        if not self.crowding:
            return int(self.transform.R.randint(len(voxels)))
        around = gaussian_blur(sulci.float(), self.transform.scale)[0][tuple(voxels.T)].double().cpu() ** self.crowding
        return int(self.transform.R.choice(len(voxels), p=(around / around.sum()).numpy()))
