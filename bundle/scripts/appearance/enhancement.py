"""What a contrast agent makes bright in a healthy brain: vessels, sinuses, choroid plexus."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..blur import gaussian_blur
from ..errors import InputError
from ..fluid import deeper_than, random_noise
from ..labels import LabelTable
from ..randomness import RandDictionaryTransform

__all__ = ["RandEnhancement", "RandEnhancementd"]


class RandEnhancement(RandomizableTransform):
    """Brighten vessels and choroid plexus as gadolinium does in a T1w.

    Two noises are both near 0 on curves: the vessels, in CSF and near the surface of the brain. The choroid plexus is made of
    blobs in the deep CSF. Both are healthy; a network that never saw them takes them for lesions.

    Args:
        labels: label scheme, with the tissues ``white_matter`` and ``csf``.
        brightness: range of the intensity of the blood, relative to the mean of white matter.
        vessel_spacing: voxels, edge of a cell of the noise: about how far apart vessels are.
        vessel_width: range in voxels, standard deviation of a vessel's profile.
        reach: voxels below the surface of the brain in which vessels run.
        plexus_depth: voxels below the surface from which on CSF is a ventricle's.
        plexus_share: range of the share of that CSF that plexus fills.
        prob: probability of an enhancement.

    Returns (of a call):
        ``(1, X, Y, Z)`` image, nowhere darker than the input.

    Raises:
        InputError: when image and label map are not on one grid.
    """

    def __init__(
        self,
        labels: LabelTable,
        brightness: tuple[float, float] = (1.1, 2.5),
        vessel_spacing: float = 12.0,
        vessel_width: tuple[float, float] = (0.3, 0.8),
        reach: float = 3.0,
        plexus_depth: float = 8.0,
        plexus_share: tuple[float, float] = (0.0, 0.2),
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self.labels = labels
        self.brightness = brightness
        self.vessel_spacing = vessel_spacing
        self.vessel_width = vessel_width
        self.reach = reach
        self.plexus_depth = plexus_depth
        self.plexus_share = plexus_share

    def randomize(self, data=None) -> None:
        super().randomize(None)
        self._brightness = self.R.uniform(*self.brightness)
        self._width = self.R.uniform(*self.vessel_width)
        self._share = self.R.uniform(*self.plexus_share)
        self._seed = self.R.randint(2**31 - 1)

    def blood(self, label_map: torch.Tensor) -> torch.Tensor:
        """Share of every voxel that the current draw fills with blood, ``(1, X, Y, Z)``, 0 to 1."""
        label = convert_to_tensor(label_map, track_meta=False)
        brain = label > 0
        csf = convert_to_tensor(self.labels.mask(label_map, "csf"), track_meta=False)
        ventricle = csf & deeper_than(brain[0], self.plexus_depth)[None]
        near_surface = ~deeper_than(brain[0], self.reach)[None]
        state = np.random.RandomState(self._seed)
        like = torch.zeros(label.shape[1:], device=label.device)
        # A noise divided by its slope is a distance in voxels from the surface on which it is 0.
        distances = []
        for _ in range(2):
            noise = random_noise(state, like, self.vessel_spacing)
            slope = torch.stack(torch.gradient(noise)).square().sum(dim=0).sqrt()
            distances.append(noise / slope.clamp(min=1e-3))
        vessels = torch.exp(-0.5 * (distances[0].square() + distances[1].square()) / self._width**2)[None]
        share = vessels * (brain & ~ventricle & (csf | near_surface))
        if self._share > 0 and ventricle.any():
            plexus = random_noise(state, like, 3.0)[None]
            blobs = ventricle & (plexus > torch.quantile(plexus[ventricle], 1.0 - self._share))
            share = torch.maximum(share, gaussian_blur(blobs.float(), 0.5) * ventricle)
        return share

    def __call__(self, img: torch.Tensor, label_map: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        if img.shape != label_map.shape:
            raise InputError(
                f"image {tuple(img.shape)} and label map {tuple(label_map.shape)} must share one grid; resample one"
            )
        white = convert_to_tensor(self.labels.mask(label_map, "white_matter"), track_meta=False)
        if not self._do_transform or not white.any():
            return img
        image = convert_to_tensor(img, track_meta=False)
        bright = self._brightness * image[white].mean()
        out = image + self.blood(label_map) * (bright - image).clamp(min=0.0)
        return convert_to_dst_type(out, img, dtype=torch.float32)[0]


class RandEnhancementd(RandDictionaryTransform):
    """Dictionary form of `RandEnhancement`.

    Args:
        keys: images.
        labels: label scheme.
        label_key: label map.
        enhancement: further arguments of `RandEnhancement`.
    """

    def __init__(self, keys: KeysCollection, labels: LabelTable, label_key: str = "label", **enhancement) -> None:
        super().__init__(keys, RandEnhancement(labels, **enhancement))
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.transform.randomize()
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d[self.label_key], randomize=False)
        return d
