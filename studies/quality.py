"""How well a lesion is replaced by healthy tissue, for ``bundle/docs/README.md``.

``PYTHONPATH=bundle python -m studies.quality runs/quality`` writes ``datalist.json`` for ``run judging``. Each of the eight people
of ``healthy_split.json`` that test gets one lesion of 2 to 50 ml as T1w, painted as those of `studies.comparison`; the healthy T1w
is the truth of the reconstruction. What ``run judging`` writes to ``cases.csv`` has the PSNR in the lesion of reconstruction, scan
and mirror. ``small.json`` has the same people with one ball of 0.2, 0.5 or 1 ml in white matter. ``contrasts.json`` is for choices:
eight of the people that calibrate, each with one such lesion as T2w, as FLAIR and as CT.
"""

import json
import sys
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.utils import set_determinism
from scipy.ndimage import binary_erosion
from scripts.volumes import read_volume
from tqdm import tqdm

from . import SHARED
from .comparison import like, painted, with_lesion
from .healthy_cases import entry, extracted, in_other_contrasts, save
from .training_data import HEALTHY

LESION_ML = (2.0, 50.0)
SMALL_ML = (0.2, 0.5, 1.0)


def lesioned(scan: MetaTensor, modality: str, name: str, folder: Path, random: np.random.RandomState) -> dict:
    """Write a scan with one lesion and the mask of it; the entry of a datalist."""
    low, high = LESION_ML
    scan, mask = with_lesion(scan, modality, low * (high / low) ** random.uniform(), random)
    image = save(scan, folder / f"{name}_lesion.nii.gz")
    return entry(image, modality, lesion=save(mask, folder / f"{name}_lesion_mask.nii.gz", np.uint8))


def write_contrasts(folder: Path) -> Path:
    """Write the datalist of the other contrasts and its scans; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, subject in enumerate(tqdm(HEALTHY["calibration"][:8])):
        random = np.random.RandomState([19, number])
        brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
        for healthy in in_other_contrasts(subject, brain, folder, random):
            scan = read_volume(folder / healthy["image"])
            cases.append(lesioned(scan, healthy["modality"], healthy["subject"], folder, random))
    datalist = folder / "contrasts.json"
    datalist.write_text(json.dumps({"test": cases}, indent=1))
    return datalist


def write_quality(folder: Path) -> Path:
    """Write the datalist and its scans; the same every time."""
    set_determinism(0)
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, subject in enumerate(tqdm(HEALTHY["test"])):
        random = np.random.RandomState([18, number])
        brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
        healthy = save(brain, folder / f"{subject}_t1.nii.gz")
        cases.append({**lesioned(brain, "t1", subject, folder, random), "healthy": healthy})
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"test": cases}, indent=1))
    return datalist


def write_small(folder: Path) -> Path:
    """Write the datalist of small lesions and its scans; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, subject in enumerate(tqdm(HEALTHY["test"])):
        random = np.random.RandomState([20, number])
        brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
        values = np.asarray(brain[0])
        white = binary_erosion(values > 0.65 * np.percentile(values[values > 0], 99), iterations=2)
        for ml in SMALL_ML:
            centre = np.argwhere(white)[random.randint(white.sum())]
            away = np.linalg.norm(np.moveaxis(np.indices(values.shape), 0, -1) - centre, axis=-1)
            radius = (3 * ml * 1000 / (4 * np.pi)) ** (1 / 3)  # mm, of 1 mm voxels
            share = np.clip(radius + 0.5 - away, 0.0, 1.0)
            name = f"{subject}_{ml:g}ml"
            image = save(painted(brain, "t1", share, random), folder / f"{name}.nii.gz")
            mask = save(like(brain, away <= radius), folder / f"{name}_mask.nii.gz", np.uint8)
            cases.append(entry(image, "t1", lesion=mask))
    datalist = folder / "small.json"
    datalist.write_text(json.dumps({"test": cases}, indent=1))
    return datalist


if __name__ == "__main__":
    for write in (write_quality, write_contrasts, write_small):
        print(write(Path(sys.argv[1])))
