"""Cases that ask whether a healthy brain is left alone: ``PYTHONPATH=bundle python -m studies.healthy_cases runs/healthy``.

Written, each a datalist for ``run inferring``, ``run judging``, ``run gating`` and ``run calibrating``:

- ``calibration.json``: the T1w of the people of ``healthy_split.json`` and of `studies.aged` that calibrate, and the former as T2w,
  FLAIR and CT, too, which are made of the T1w by contrast curves. All come as T1w with contrast agent, too, in which vessels
  and plexus are painted: nobody here has a real healthy one;
- ``test.json``: the same of the people that test, and two label maps that no training saw, in random modalities;
- ``ventricles.json``: the T1w of the people that test, with ventricles whose walls are moved by 6 to 8 mm, unequally on both
  sides, by the deformation that the training uses;
- ``degraded.json``: the T1w of the people that test, with Table B.1's severe bias field and noise, in slices of 3 mm;
- ``cavities.json``: the T1w of the people that test, each with cavities filled with CSF of 20 to 200 ml on one side, cortical or
  deep, and their masks.
"""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from monai.utils import set_determinism
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scripts.appearance import RandContrastCurve, RandGridBiasField, RandModality, ScaleToWhiteMatter
from scripts.config import from_config
from scripts.labels import LabelTable
from scripts.preprocessing import AlignToRAS, BrainExtraction, tissue_labels
from scripts.symmetry import estimate_mirror
from scripts.volumes import read_volume
from tqdm import tqdm

from . import SHARED, aged
from .training_data import HEALTHY

BIAS_FIELDS = {"medium": ((0.02, 0.03), (0.05, 0.3)), "severe": ((0.02, 0.04), (0.1, 0.6))}  # Table B.1
KNOTS = [0.22, 0.57, 0.75, 1.0]  # CSF, gray and white matter of a T1w whose white matter is at 0.75, and the brightest
CONTRASTS = {  # ranges of their values in another modality; CT in shares of 80 HU
    "t2": [[0.8, 1.0], [0.42, 0.58], [0.27, 0.43], [0.2, 0.45]],
    "flair": [[0.04, 0.18], [0.47, 0.63], [0.32, 0.48], [0.3, 0.6]],
    "ct": [[0.08, 0.18], [0.45, 0.55], [0.34, 0.43], [0.3, 0.5]],
}
APPEARANCES = {  # of label maps, on the 0-255 scale
    "t1": {
        "csf": [20, 50],
        "gray_matter": [90, 115],
        "deep_gray_matter": [105, 145],
        "white_matter": [140, 170],
        "brain_stem": [130, 165],
    },
    "t2": {
        "csf": [200, 240],
        "gray_matter": [105, 140],
        "deep_gray_matter": [85, 120],
        "white_matter": [65, 100],
        "brain_stem": [65, 100],
    },
    "flair": {
        "csf": [10, 40],
        "gray_matter": [115, 150],
        "deep_gray_matter": [105, 140],
        "white_matter": [85, 120],
        "brain_stem": [85, 125],
    },
    "ct": {
        "csf": [20, 45],
        "gray_matter": [112, 135],
        "deep_gray_matter": [108, 135],
        "white_matter": [88, 108],
        "brain_stem": [88, 108],
    },
}
CAVITY_ML = (20.0, 200.0)
WIDE_VENTRICLES = {
    "ventricle_prob": 1.0,
    "ventricle_change": [6.0, 8.0],
    "volume_keys": ["scan"],
    "interpolation": ["bilinear"],
}
LABEL_MAPS = ("label_maps/training_seg_16.nii.gz", "label_maps_brain/brain4_labels.nii.gz")


def save(volume: MetaTensor, path: Path, dtype=np.float32) -> str:
    nib.save(nib.Nifti1Image(np.asarray(volume[0]).astype(dtype), np.asarray(volume.affine)), path)
    return path.name


def entry(image: str, modality: str, **known) -> dict:
    """Of a datalist: the scans of one person are a session."""
    return {"subject": image.removesuffix(f"_{modality}.nii.gz"), "image": image, "modality": modality, **known}


def like(scan: MetaTensor, values: np.ndarray) -> MetaTensor:
    """Values ``(X, Y, Z)`` as a volume on the grid of a scan."""
    return MetaTensor(torch.from_numpy(values.astype(np.float32))[None], affine=scan.affine)


def diseased(
    scan: MetaTensor, mask: MetaTensor, modality: str, name: str, folder: Path, **known: str
) -> dict[str, object]:
    """Write a scan with a lesion and the mask of it; the entry of a datalist."""
    image = save(scan, folder / f"{name}.nii.gz")
    return entry(image, modality, lesion=save(mask, folder / f"{name}_mask.nii.gz", np.uint8), **known)


def extracted(scan: MetaTensor) -> MetaTensor:
    """The brain of a scan, aligned to RAS at 1 mm, white matter at 0.75."""
    aligned = AlignToRAS(1.0)(scan)
    brain = BrainExtraction()(aligned)
    return ScaleToWhiteMatter()(MetaTensor(aligned.as_tensor() * brain.as_tensor(), affine=aligned.affine))


def in_other_contrasts(name: str, brain: MetaTensor, folder: Path, random: np.random.RandomState) -> list[dict]:
    entries = []
    for modality, values in CONTRASTS.items():
        curve = RandContrastCurve(KNOTS, [{"values": values}], prob=1.0).set_random_state(state=random)
        volume = curve(brain) * (80.0 if modality == "ct" else 1000.0)
        entries.append(entry(save(volume, folder / f"{name}_{modality}.nii.gz"), modality, diseased=False))
    return entries


def changed(brain: MetaTensor, label: MetaTensor, part: str, seed: int, **settings) -> MetaTensor:
    """The brain after a random transform of the generator, which knows its tissues."""
    transform = from_config("generator.yaml", part, {"voxel_size": 1.0, **settings})
    return transform.set_random_state(seed)({"scan": brain, "label": label})["scan"] * 1000.0


def enhanced(brain: MetaTensor, label: MetaTensor, seed: int) -> MetaTensor:
    """The brain with bright vessels and plexus."""
    settings = {"voxel_size": float(brain.pixdim[0]), "enhancement_prob": 1.0}
    return changed(brain, label, "enhance", seed, **settings)


def cleaned_label_map(path: str | Path, labels: LabelTable) -> MetaTensor:
    """A label map in RAS, with the brain's labels alone."""
    return labels.clean(Orientation("RAS", labels=None)(read_volume(path)))


def of_label_map(label_map: MetaTensor, modality: str, labels: LabelTable, seed: int) -> MetaTensor:
    """A brain-extracted scan of a modality, drawn from a label map."""
    appearance = {"mean": [90, 140], "std": [3, 8], "tissues": APPEARANCES[modality]}
    scan = RandModality(labels, [appearance], background_prob=0.0).set_random_state(seed=seed)(label_map)
    scale = 80.0 if modality == "ct" else 1000.0
    return MetaTensor(scan.as_tensor() * scale * (label_map.as_tensor() > 0), affine=label_map.affine)


def degraded(
    scan: MetaTensor,
    random: np.random.RandomState,
    field: str = "severe",
    noise: tuple[float, float] = (5.0, 10.0),
    thickness: int = 3,
) -> MetaTensor:
    """A bias field and noise (Table B.1, in 255ths of white matter), in axial slices of some mm."""
    aligned = AlignToRAS(1.0)(scan)
    coil = RandGridBiasField(*BIAS_FIELDS[field]).set_random_state(state=random)
    values = np.asarray(coil(aligned.as_tensor())[0])
    depth = values.shape[2] // thickness * thickness
    thick = values[:, :, :depth].reshape(*values.shape[:2], -1, thickness).mean(axis=3)
    white = np.percentile(thick[thick > 0.1 * thick.max()], 95)
    noise = random.uniform(*noise) / 255 * white * random.normal(size=thick.shape)
    head = (
        gaussian_filter((thick > 0.02 * thick.max()).astype(float), 1.0) > 0.5
    )  # an extracted scan has no noise outside
    thick = np.where(head, np.maximum(thick + noise, 0.0), thick)
    affine = np.asarray(aligned.affine) @ np.diag([1.0, 1.0, thickness, 1.0])
    affine[:3, 3] += np.asarray(aligned.affine)[:3, 2] * (thickness - 1) / 2
    return MetaTensor(torch.from_numpy(thick.astype(np.float32))[None], affine=affine)


def with_cavity(
    scan: MetaTensor, ml: float, cortical: bool, random: np.random.RandomState, level: float = 3.0
) -> tuple[MetaTensor, MetaTensor]:
    """The scan, RAS at 1 mm, with one cavity of a volume on a random side, and the mask of the cavity.

    Its intensity is that of a percentile `level` of the brain: 3 is CSF, 30 gray matter.
    """
    aligned = AlignToRAS(1.0)(scan)
    mask = BrainExtraction()(aligned)
    values, brain = np.array(aligned[0]), np.asarray(mask[0]) > 0
    mirror = estimate_mirror(aligned, mask)
    voxels = (
        np.indices(brain.shape).reshape(3, -1).T @ np.asarray(aligned.affine)[:3, :3].T
        + np.asarray(aligned.affine)[:3, 3]
    )
    off_plane = (voxels[:, 0] - (voxels @ mirror[:3, :3].T + mirror[:3, 3])[:, 0]).reshape(brain.shape) / 2
    side = brain & (off_plane * random.choice([-1, 1]) > 2.0)
    depth = distance_transform_edt(brain)
    height = np.indices(brain.shape)[2] - np.argwhere(brain)[:, 2].min()
    places = (
        side
        & (height > 55)
        & ((depth < 3) & (np.abs(off_plane) > 25) if cortical else (depth > 20) & (np.abs(off_plane) > 14))
    )
    middle = np.argwhere(places)[random.randint(int(places.sum()))]
    distance = np.sqrt(((np.indices(brain.shape).transpose(1, 2, 3, 0) - middle) ** 2).sum(axis=-1))
    rough = gaussian_filter(random.normal(size=brain.shape), 6.0)
    distance += 6.0 * rough / rough.std()
    order = np.sort(distance[side])
    cavity = side & (distance <= order[min(len(order) - 1, int(ml * 1000))])
    fluid = np.percentile(values[brain], level)
    share = gaussian_filter(cavity.astype(float), 0.7)
    texture = fluid + 0.02 * np.percentile(values[brain], 95) * random.normal(size=brain.shape)
    filled = np.where(brain, values * (1 - share) + np.maximum(texture, 0.0) * share, values)
    return like(aligned, filled), like(aligned, cavity)


def write_healthy_cases(folder: Path) -> None:
    """Write the five datalists and their scans; the same every time."""
    set_determinism(0)
    folder.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[dict]] = {"calibration": [], "test": [], "ventricles": [], "degraded": [], "cavities": []}
    for kind in ("calibration", "test"):
        for subject in aged.people()[kind]:
            scan = read_volume(aged.FOLDER / f"{subject}_T1w.nii.gz")
            lists[kind].append(entry(save(scan, folder / f"{subject}_t1.nii.gz"), "t1", diseased=False))
            if kind == "calibration":
                brain = ScaleToWhiteMatter()(scan.clamp(min=0.0))
                label = tissue_labels(brain, brain > 0, np.eye(4))
                image = save(enhanced(brain, label, int(subject[-3:])), folder / f"{subject}_t1c.nii.gz")
                lists[kind].append(entry(image, "t1c", diseased=False))
        for number, subject in enumerate(tqdm(HEALTHY[kind], desc=kind)):
            random = np.random.RandomState([kind == "test", number])
            scan = read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz")
            lists[kind].append(entry(save(scan, folder / f"{subject}_t1.nii.gz"), "t1", diseased=False))
            brain = extracted(scan)
            lists[kind] += in_other_contrasts(subject, brain, folder, random)
            label = tissue_labels(brain, brain > 0, np.eye(4))
            seed = number if kind == "test" else 100 + number
            image = save(enhanced(brain, label, seed), folder / f"{subject}_t1c.nii.gz")
            lists[kind].append(entry(image, "t1c", diseased=False))
            if kind == "test":
                wide = changed(brain, label, "ventricles", number, **WIDE_VENTRICLES)
                image = save(wide, folder / f"{subject}_ventricles_t1.nii.gz")
                lists["ventricles"].append(entry(image, "t1", diseased=False))
                image = save(degraded(scan, random), folder / f"{subject}_degraded_t1.nii.gz")
                lists["degraded"].append(entry(image, "t1", diseased=False))
                for cortical in (True, False):
                    share = (2 * number + (not cortical)) / (2 * len(HEALTHY[kind]) - 1)
                    ml = CAVITY_ML[0] * (CAVITY_ML[1] / CAVITY_ML[0]) ** share
                    name = f"{subject}_cavity_{'cortical' if cortical else 'deep'}_t1"
                    filled, cavity = with_cavity(scan, ml, cortical, random)
                    lists["cavities"].append(diseased(filled, cavity, "t1", name, folder))
    labels = from_config("generator.yaml", "labels", {})
    for number, file in enumerate(LABEL_MAPS):
        label_map = cleaned_label_map(SHARED / file, labels)
        for modality in APPEARANCES:
            volume = of_label_map(label_map, modality, labels, seed=number)
            image = save(volume, folder / f"label_map{number}_{modality}.nii.gz")
            lists["test"].append(entry(image, modality, diseased=False))
    for kind, entries in lists.items():
        (folder / f"{kind}.json").write_text(json.dumps({"test": entries}, indent=1))


if __name__ == "__main__":
    write_healthy_cases(Path(sys.argv[1]))
