"""Brain extraction of a scan of any contrast."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    FillHoles,
    KeepLargestConnectedComponent,
    MapTransform,
    SaveImage,
    Transform,
    generate_spatial_bounding_box,
)
from monai.utils import optional_import
from scipy.ndimage import distance_transform_edt
from skimage.measure import regionprops

from ..errors import InputError
from ..neighbourhood import closed
from ..volumes import on_grid, read_volume, voxel_ml
from .hd_bet import hd_bet
from .template import place_template

Deepbet, _ = optional_import("deepbet", name="BrainExtraction")  # a training on packed subjects has no need of it

__all__ = ["BrainExtraction", "BrainExtractiond"]

SMALLEST_BRAIN = 200.0  # ml
PLAUSIBLE_BRAIN = (500.0, 2500.0)  # ml: with less or more, another method is tried
SOLID = 0.78  # share of its convex hull that a brain fills; of brains 0.87, of what a network sees in noise 0.69
USUAL_BRAIN = (900.0, 2000.0)  # ml, of adults with the CSF around; less or more is worth a look
CUT_BRAIN = 2.0  # ml of brain in the outermost layer of voxels: more than the end of the brain stem
MARGIN = 4.0  # mm beyond the brain that was found, in which the signal of an extracted scan is kept
SURFACE, THREAD = 10.0, 3.0  # mm: depth of what may be taken off, radius of what holds
CLEFT = 10.0  # mm: what an extracted scan lacks between parts of the brain twice this near is brain, as dark as air
BONE = 0.1  # of the median inside: darker is compact bone or air in any contrast

SYNTHSTRIP = ("mri_synthstrip", "-i", "{scan}", "-m", "{mask}")


@lru_cache(maxsize=1)
def _deepbet() -> Deepbet:
    return Deepbet(no_gpu=True)


class BrainExtraction(Transform):
    """Mark the brain, CSF around it included, in a head scan of any contrast.

    Methods:
        deepbet: a network that comes with its weights (L. Fisch et al., Computers in Biology and Medicine 2024). It was trained on
            T1w; it holds on T2w and FLAIR too, not on CT.
        template: the ICBM template's brain is placed in the scan (`place_template`); near its surface, what is brighter than
            anything inside (fat, marrow, vessels) or as dark as bone is taken off, and so is what lies beyond it or hangs on by a
            thread.
        hd-bet: a network for T1w, T2w and FLAIR (`hd_bet`); its package has 294 MB and is no part of the installation.
        auto: deepbet, and the template where its answer cannot be a brain.
        synthstrip: FreeSurfer's command, where it is installed.

    A scan that is brain-extracted already is recognized, for its background is empty, and almost no signal lies outside the brain
    that was found: its signal is the brain, and so are clefts in it, which a lesion as dark as air leaves at the surface. What an
    earlier extraction left further out, as eyes and skull base, is trimmed.

    Args:
        method: see above.
        stripped_share: largest share of the signal outside the brain of a scan that counts as extracted.
        least_information: mutual information with the template, below which a scan does not show a head.

    Returns (of a call):
        mask, float32 0/1, on the grid of the scan, which must be axis-aligned RAS with background 0. Its meta data tell
        ``brain_method``, the method that was used, ``trimmed_ml``, and ``brain_warnings``, what a reader should look at.

    Raises:
        InputError: when no brain is found, or the tool asked for is not installed or fails.
    """

    def __init__(self, method: str = "auto", stripped_share: float = 0.2, least_information: float = 0.1) -> None:
        known = ("auto", "deepbet", "template", "hd-bet", "synthstrip")
        if method not in known:
            raise InputError(f"brain extraction '{method}' is not known; use one of {', '.join(known)}")
        self.method = method
        self.stripped_share = stripped_share
        self.least_information = least_information
        self.largest, self.fill = KeepLargestConnectedComponent(), FillHoles()

    def __call__(self, img: MetaTensor) -> MetaTensor:
        name = img.meta.get("filename_or_obj", "the scan")
        used = "deepbet" if self.method == "auto" else self.method
        inside = self._found_by(used, img, name)
        if inside is None:
            used, inside = "template", self._by_template(img, name)
        if not inside.any():
            raise InputError(f"{used} found no brain in {name}; is it a head scan? Or try the method template")
        values = img.as_tensor()
        bright = torch.quantile(values[inside][:: max(1, int(inside.sum()) // 100_000)], 0.999)
        signal = values > 0.02 * bright
        empty = float((values <= 0).float().mean()) > 0.3
        sizes = np.linalg.norm(np.asarray(img.affine)[:3, :3], axis=0)
        trimmed_ml = 0.0
        if empty and float((signal & ~inside).sum()) < self.stripped_share * float(signal.sum()):
            mask = closed(self.largest(signal.float()) > 0, CLEFT, sizes)
            near = closed(inside, CLEFT, sizes, MARGIN)  # a lesion at the surface must not be trimmed
            trimmed_ml = float((mask & signal & ~near).sum()) * voxel_ml(img)
            mask = mask & near
        elif used == "template":
            mask = self._cleaned(inside, values, sizes)
        else:
            mask = inside
        mask = self.fill(self.largest(mask.float())).float()
        volume_ml = float(mask.sum()) * voxel_ml(img)
        if volume_ml < SMALLEST_BRAIN:
            raise InputError(
                f"only {volume_ml:.0f} ml of brain found in {name}; is it a head scan, and does it show the brain?"
            )
        return self._described(MetaTensor(mask.as_tensor(), meta=dict(img.meta)), used, trimmed_ml)

    @staticmethod
    def _described(mask: MetaTensor, used: str, trimmed_ml: float) -> MetaTensor:
        volume_ml = float(mask.sum()) * voxel_ml(mask)
        warnings = []
        if not USUAL_BRAIN[0] <= volume_ml <= USUAL_BRAIN[1]:
            warnings.append(
                f"the brain mask has {volume_ml:.0f} ml, adult brains with their CSF {USUAL_BRAIN[0]:g} to {USUAL_BRAIN[1]:g} ml"
            )
        inside = mask[0] > 0
        faces = [float(inside.select(axis, end).sum()) * voxel_ml(mask) for axis in range(3) for end in (0, -1)]
        if max(faces) > CUT_BRAIN:
            warnings.append("the brain reaches the border of the scan: a part of it is not in view")
        if trimmed_ml > 1.0:
            warnings.append(f"{trimmed_ml:.0f} ml outside of the brain, left by an earlier extraction, were trimmed")
        mask.meta.update(brain_method=used, trimmed_ml=round(trimmed_ml, 1), brain_warnings=warnings)
        return mask

    def _found_by(self, method: str, img: MetaTensor, name) -> torch.Tensor | None:
        if method == "hd-bet":
            return hd_bet(img)
        by = {"deepbet": self._by_deepbet, "template": self._by_template, "synthstrip": self._by_synthstrip}
        return by[method](img, name)

    def _by_template(self, img: MetaTensor, name) -> torch.Tensor:
        placed, information = place_template(img)
        inside = (on_grid(placed, img) > 0.5).as_tensor()
        if information < self.least_information or not inside.any():
            raise InputError(
                f"no brain found in {name} (agreement with the template {information:.2f}, needed "
                f"{self.least_information}); is it a head scan, and is its orientation right?"
            )
        return inside

    def _by_deepbet(self, img: MetaTensor, name) -> torch.Tensor | None:
        """The brain, or None where the answer cannot be one and another method may be tried."""
        scan = nib.Nifti1Image(np.asarray(img[0], dtype=np.float32), np.asarray(img.affine, dtype=np.float64))
        try:
            _, mask, volume_ml = _deepbet().run(scan)
        except (AssertionError, ValueError) as error:  # it found no foreground at all
            if self.method == "auto":
                return None
            raise InputError(f"deepbet found no brain in {name}; try the method template") from error
        found = np.asarray(mask.dataobj) > 0
        solid = regionprops(found[::2, ::2, ::2].astype(np.uint8))[0].solidity if found[::2, ::2, ::2].any() else 0.0
        implausible = not PLAUSIBLE_BRAIN[0] <= volume_ml <= PLAUSIBLE_BRAIN[1] or solid < SOLID
        if self.method == "auto" and implausible:
            return None
        return torch.from_numpy(found)[None]

    @staticmethod
    def _cleaned(inside: torch.Tensor, values: torch.Tensor, sizes: np.ndarray) -> torch.Tensor:
        low, high = generate_spatial_bounding_box(inside, margin=1, allow_smaller=True)
        box = tuple(map(slice, low, high))
        brain = inside[0][box].numpy()
        depth, scan = distance_transform_edt(brain, sampling=sizes), values[0][box].numpy()
        deep = scan[depth > SURFACE] if (depth > SURFACE).any() else scan[brain]
        odd = (scan > 1.05 * np.percentile(deep, 99.9)) | (scan < BONE * np.median(deep))
        kept = brain & ~(odd & (depth < SURFACE))
        # Two thresholds of distances make the opening, so that the ball is the same for any voxel size.
        core = distance_transform_edt(kept, sampling=sizes) > THREAD
        cleaned = torch.zeros_like(inside)
        near = distance_transform_edt(~core, sampling=sizes) <= THREAD + sizes.max()
        cleaned[0][box] = torch.from_numpy(kept & near)
        return cleaned

    @staticmethod
    def _by_synthstrip(img: MetaTensor, name) -> torch.Tensor:
        if shutil.which(SYNTHSTRIP[0]) is None:
            raise InputError(
                f"brain extraction 'synthstrip' needs the command {SYNTHSTRIP[0]}, which is not installed: install FreeSurfer 7.3 "
                "or its synthstrip container, or use the method deepbet"
            )
        with tempfile.TemporaryDirectory() as directory:
            files = {key: str(Path(directory) / f"{key}.nii.gz") for key in ("scan", "mask")}
            save = SaveImage(directory, separate_folder=False, resample=False, print_log=False, output_postfix="")
            save(img, filename=files["scan"].removesuffix(".nii.gz"))
            done = subprocess.run([part.format(**files) for part in SYNTHSTRIP], capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise InputError(f"{SYNTHSTRIP[0]} failed on {name}: {reason}")
            mask = read_volume(files["mask"])
        return mask.as_tensor() > 0


class BrainExtractiond(MapTransform):
    """Dictionary form of `BrainExtraction`: adds the mask, unless the data has one. A CT is given to the template, which no
    network here was trained on.

    Args:
        keys: one key, the scan.
        mask_key: where the mask goes.
        method: see `BrainExtraction`.
        modality_key: modality of the scan.
        extraction: further arguments of `BrainExtraction`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = "brain",
        method: str = "auto",
        modality_key: str = "modality",
        **extraction,
    ) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.modality_key = modality_key
        self.extract = BrainExtraction(method, **extraction)
        by_template = method in ("auto", "deepbet", "hd-bet")
        self.extract_ct = BrainExtraction("template", **extraction) if by_template else self.extract

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        if self.mask_key in data:
            return dict(data)
        extract = self.extract_ct if data.get(self.modality_key) == "ct" else self.extract
        return {**data, self.mask_key: extract(data[self.keys[0]])}
