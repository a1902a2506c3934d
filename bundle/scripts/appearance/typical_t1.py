"""A T1w for subjects that have a label map only: the training target that a person with this anatomy would give."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..blur import gaussian_blur
from ..errors import InputError
from ..labels import LabelTable
from ..randomness import voxel_noise

__all__ = ["TypicalT1w", "TypicalT1wd"]


class TypicalT1w(Transform):
    """Synthesize a T1w from a label map, at the label map's own resolution, the same for the same label map.

    Every structure has its typical intensity; tissues mix at their borders; a smooth texture stays inside every structure,
    as iron, myelin and vessels leave it in a real scan. Made before the label map is resampled, so that a coarser working grid
    sees true partial volume and not the stairs of resampled labels.

    Args:
        labels: label scheme.
        intensities: value by label, white matter being 1; right labels share the value of their left partners.
        white_matter: value of white matter in the result [0, 1].
        partial_volume: standard deviation over which tissues mix, voxels.
        texture: standard deviation of the texture, relative to white matter.
        texture_scale: its smoothness (standard deviation), voxels.

    Returns (of a call):
        float32 ``(1, X, Y, Z)`` in [0, 1], 0 in the background.

    Raises:
        InputError: when the label map has a label without an intensity.
    """

    def __init__(
        self,
        labels: LabelTable,
        intensities: Mapping[int, float],
        white_matter: float = 0.75,
        partial_volume: float = 0.6,
        texture: float = 0.04,
        texture_scale: float = 1.0,
    ) -> None:
        partner = dict(zip(labels.left, labels.right))
        self.intensities = {int(label): float(value) for label, value in intensities.items()}
        self.intensities |= {partner[label]: value for label, value in self.intensities.items() if label in partner}
        self.table = labels.lookup(self.intensities)
        self.white_matter = white_matter
        self.partial_volume = partial_volume
        self.texture = texture
        self.texture_scale = texture_scale

    def __call__(self, label_map: torch.Tensor) -> torch.Tensor:
        labels = convert_to_tensor(label_map, track_meta=False).long()
        missing = sorted(set(labels.unique().tolist()) - {0, *self.intensities})
        if missing:
            raise InputError(f"no T1w intensity for the labels {missing}; add them to the intensities of TypicalT1w")
        image = gaussian_blur(self.table.to(labels.device)[labels], self.partial_volume)
        smooth = gaussian_blur(voxel_noise(int(labels.sum()) % 2**31, image), self.texture_scale)
        image = (image + self.texture * smooth / smooth.std()) * (labels > 0)
        return convert_to_dst_type((image * self.white_matter).clamp(0.0, 1.0), label_map, dtype=torch.float32)[0]


class TypicalT1wd(MapTransform):
    """Dictionary form of `TypicalT1w`, for data without a real T1w.

    Args:
        keys: one key, the label map.
        labels: label scheme.
        image_key: where the T1w goes.
        real_key: data that has this key is left alone.
        typical: further arguments of `TypicalT1w`.
        allow_missing_keys: skip data without a label map.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: LabelTable,
        image_key: str = "typical_t1",
        real_key: str = "t1",
        allow_missing_keys: bool = False,
        **typical,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = TypicalT1w(labels, **typical)
        self.image_key = image_key
        self.real_key = real_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.real_key not in d:
                d[self.image_key] = self.transform(d[key])
        return d
