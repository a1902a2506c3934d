"""Brain extraction of a scan of any contrast."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    FillHoles,
    KeepLargestConnectedComponent,
    MapTransform,
    ResampleToMatch,
    SaveImage,
    Transform,
    generate_spatial_bounding_box,
)
from scipy.ndimage import distance_transform_edt

from ..errors import InputError
from ..volumes import read_volume
from .template import place_template

__all__ = ["BrainExtraction", "BrainExtractiond"]

SMALLEST_BRAIN = 200.0  # ml
SURFACE, THREAD = 10.0, 3.0  # mm: depth of what may be taken off, radius of what holds
CLEFT = 10.0  # mm: what an extracted scan lacks between parts of the brain twice this near is brain, as dark as air
BONE = 0.1  # of the median inside: darker is compact bone or air in any contrast

# Command and what brings it; both fetch their weights on first use.
TOOLS = {
    "hd-bet": (["hd-bet", "-i", "{scan}", "-o", "{out}", "--save_bet_mask"], "out_bet.nii.gz", "pip install hd-bet"),
    "synthstrip": (
        ["mri_synthstrip", "-i", "{scan}", "-m", "{mask}"],
        "mask.nii.gz",
        "install FreeSurfer 7.3 or its synthstrip container",
    ),
}


class BrainExtraction(Transform):
    """Mark the brain, CSF around it included, in a head scan of any contrast.

    The template's brain is placed in the scan (`place_template`); near its surface, what is brighter than anything inside
    (fat, marrow, vessels) or as dark as bone is taken off, and so is what lies beyond it or hangs on by a thread.

    A scan that is brain-extracted already is recognized, for its background is empty, and almost no signal lies outside the brain
    that was placed: its signal is the brain, and so are clefts in it, which a lesion as dark as air leaves at the surface.

    Args:
        method: "template" (needs nothing), "hd-bet" or "synthstrip" (need an installation).
        stripped_share: largest share of the signal outside the brain of a scan that counts as extracted.
        least_information: mutual information with the template, below which a scan does not show a head.

    Returns (of a call):
        mask, float32 0/1, on the grid of the scan, which must be axis-aligned RAS with background 0.

    Raises:
        InputError: when no brain is found, or the tool asked for is not installed or fails.
    """

    def __init__(self, method: str = "template", stripped_share: float = 0.2, least_information: float = 0.1) -> None:
        if method != "template" and method not in TOOLS:
            raise InputError(f"brain extraction '{method}' is not known; use template, {' or '.join(TOOLS)}")
        self.method = method
        self.stripped_share = stripped_share
        self.least_information = least_information
        self.largest, self.fill = KeepLargestConnectedComponent(), FillHoles()

    def __call__(self, img: MetaTensor) -> MetaTensor:
        name = img.meta.get("filename_or_obj", "the scan")
        if self.method != "template":
            return self._by_tool(img, name)
        placed, information = place_template(img)
        inside = (ResampleToMatch(mode="bilinear", padding_mode="zeros")(placed, img_dst=img) > 0.5).as_tensor()
        if information < self.least_information or not inside.any():
            raise InputError(
                f"no brain found in {name} (agreement with the template {information:.2f}, needed "
                f"{self.least_information}); is it a head scan, and is its orientation right?"
            )
        values = img.as_tensor()
        bright = torch.quantile(values[inside][:: max(1, int(inside.sum()) // 100_000)], 0.999)
        signal = values > 0.02 * bright
        empty = float((values <= 0).float().mean()) > 0.3
        sizes = np.linalg.norm(np.asarray(img.affine)[:3, :3], axis=0)
        if empty and float((signal & ~inside).sum()) < self.stripped_share * float(signal.sum()):
            mask = self._closed(self.largest(signal.float()) > 0, sizes)
        else:
            mask = self._cleaned(inside, values, sizes)
        mask = self.fill(self.largest(mask.float())).float()
        volume_ml = float(mask.sum()) * abs(np.linalg.det(np.asarray(img.affine)[:3, :3])) / 1e3
        if volume_ml < SMALLEST_BRAIN:
            raise InputError(
                f"only {volume_ml:.0f} ml of brain found in {name}; is it a head scan, and does it show the brain?"
            )
        return MetaTensor(mask.as_tensor(), meta=dict(img.meta))

    @staticmethod
    def _closed(signal: torch.Tensor, sizes: np.ndarray) -> torch.Tensor:
        margin = [(int(n), int(n)) for n in np.ceil(CLEFT / sizes) + 1]
        brain = np.pad(signal[0].numpy(), margin)
        near = distance_transform_edt(~brain, sampling=sizes) <= CLEFT
        closed = brain | (distance_transform_edt(near, sampling=sizes) > CLEFT)
        return torch.from_numpy(closed[tuple(slice(low, -high) for low, high in margin)])[None]

    @staticmethod
    def _cleaned(inside: torch.Tensor, values: torch.Tensor, sizes: np.ndarray) -> torch.Tensor:
        low, high = generate_spatial_bounding_box(inside, margin=1, allow_smaller=True)
        box = tuple(map(slice, low, high))
        brain = inside[0][box].numpy()
        depth, scan = distance_transform_edt(brain, sampling=sizes), values[0][box].numpy()
        deep = scan[depth > SURFACE] if (depth > SURFACE).any() else scan[brain]
        odd = (scan > 1.05 * np.percentile(deep, 99.9)) | (scan < BONE * np.median(deep))
        kept = brain & ~(odd & (depth < SURFACE))
        # Opening by two thresholds of distances: the same ball for any voxel size.
        core = distance_transform_edt(kept, sampling=sizes) > THREAD
        cleaned = torch.zeros_like(inside)
        near = distance_transform_edt(~core, sampling=sizes) <= THREAD + sizes.max()
        cleaned[0][box] = torch.from_numpy(kept & near)
        return cleaned

    def _by_tool(self, img: MetaTensor, name) -> MetaTensor:
        command, result, remedy = TOOLS[self.method]
        if shutil.which(command[0]) is None:
            raise InputError(
                f"brain extraction '{self.method}' needs the command {command[0]}, which is not installed: {remedy} "
                "(it fetches its weights on first use), or use the method template"
            )
        with tempfile.TemporaryDirectory() as directory:
            files = {key: str(Path(directory) / f"{key}.nii.gz") for key in ("scan", "out", "mask")}
            save = SaveImage(directory, separate_folder=False, resample=False, print_log=False, output_postfix="")
            save(img, filename=files["scan"].removesuffix(".nii.gz"))
            done = subprocess.run([part.format(**files) for part in command], capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise InputError(f"{command[0]} failed on {name}: {reason}")
            mask = read_volume(Path(directory) / result)
        return MetaTensor((mask.as_tensor() > 0).float(), meta=dict(img.meta))


class BrainExtractiond(MapTransform):
    """Dictionary form of `BrainExtraction`: adds the mask, unless the data has one.

    Args:
        keys: one key, the scan.
        mask_key: where the mask goes.
        extraction: arguments of `BrainExtraction`.
    """

    def __init__(self, keys: KeysCollection, mask_key: str = "brain", **extraction) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.extract = BrainExtraction(**extraction)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        if self.mask_key in data:
            return dict(data)
        return {**data, self.mask_key: self.extract(data[self.keys[0]])}
