"""Brain extraction of a scan of any contrast."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Hashable, Mapping
from pathlib import Path

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    DivisiblePad,
    FillHoles,
    KeepLargestConnectedComponent,
    MapTransform,
    ResampleToMatch,
    SaveImage,
    Transform,
)

from ..appearance import ScaleToUnit
from ..errors import InputError
from ..volumes import read_volume
from .align import AlignToRAS

__all__ = ["BrainExtraction", "BrainExtractiond"]

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

    A scan that is brain-extracted already is recognized and left alone: almost nothing above the background lies outside
    the brain that the network finds.

    Args:
        network: network of ``train_brain.yaml`` with its weights, for method "network".
        method: "network" (ships with the bundle), "hd-bet" or "synthstrip" (need an installation).
        voxel_size: grid that the network was trained on, mm.
        stripped_share: largest share of the signal outside the brain of a scan that counts as extracted.

    Returns (of a call):
        mask, float32 0/1, on the grid of the scan.

    Raises:
        InputError: when no brain is found, or the tool asked for is not installed or fails.

    References:
        A. Hoopes et al., SynthStrip: skull-stripping for any brain image, NeuroImage 260 (2022), for the principle: a
        network trained on random contrasts.
    """

    def __init__(
        self,
        network: torch.nn.Module | None = None,
        method: str = "network",
        voxel_size: float = 3.0,
        stripped_share: float = 0.05,
    ) -> None:
        if method != "network" and method not in TOOLS:
            raise InputError(f"brain extraction '{method}' is not known; use network, {' or '.join(TOOLS)}")
        self.network = network
        self.method = method
        self.stripped_share = stripped_share
        self.align = AlignToRAS(voxel_size)
        self.scale = ScaleToUnit()
        self.pad = DivisiblePad(16)
        self.largest, self.fill = KeepLargestConnectedComponent(), FillHoles()

    @torch.no_grad()
    def probability(self, img: MetaTensor) -> MetaTensor:
        """Of brain, on the network's grid."""
        low = self.pad(self.scale(self.align(img)))
        device = next(self.network.parameters()).device
        logits = self.network.eval()(low.as_tensor()[None].to(device)).float().cpu()
        return MetaTensor(torch.sigmoid(logits)[0], affine=low.affine)

    def __call__(self, img: MetaTensor) -> MetaTensor:
        name = img.meta.get("filename_or_obj", "the scan")
        if self.method != "network":
            return self._by_tool(img, name)
        probability = self.probability(img)
        mask = ResampleToMatch(mode="bilinear", padding_mode="zeros")(probability, img_dst=img) > 0.5
        if not mask.any():
            raise InputError(f"no brain found in {name}; is it a head scan, and is its orientation right?")
        mask = self.fill(self.largest(mask.float()))
        values = img.as_tensor() - img.min()
        signal = values > 0.02 * torch.quantile(values.flatten()[:: max(1, values.numel() // 100_000)], 0.999)
        outside = float((signal & (mask.as_tensor() == 0)).sum()) / float(signal.sum())
        near_empty = float((values == values.flatten().mode().values).float().mean()) > 0.3
        if near_empty and outside < self.stripped_share:
            mask = MetaTensor((values > 0).float(), meta=dict(img.meta))
        return MetaTensor(mask.as_tensor().float(), meta=dict(img.meta))

    def _by_tool(self, img: MetaTensor, name) -> MetaTensor:
        command, result, remedy = TOOLS[self.method]
        if shutil.which(command[0]) is None:
            raise InputError(
                f"brain extraction '{self.method}' needs the command {command[0]}, which is not installed: {remedy} "
                "(it fetches its weights on first use), or use the method network"
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
