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
from .healthy_cases import diseased, extracted, in_other_contrasts, save
from .training_data import HEALTHY

LESION_ML = (2.0, 50.0)
SMALL_ML = (0.2, 0.5, 1.0)


def lesioned(scan: MetaTensor, modality: str, random: np.random.RandomState) -> tuple[MetaTensor, MetaTensor]:
    """The scan with one lesion of 2 to 50 ml, and its mask."""
    low, high = LESION_ML
    return with_lesion(scan, modality, low * (high / low) ** random.uniform(), random)


def with_ball(
    scan: MetaTensor, white: np.ndarray, ml: float, random: np.random.RandomState
) -> tuple[MetaTensor, MetaTensor]:
    """The T1w, at 1 mm, with a ball of a volume around one of the places ``(N, 3)``, and its mask."""
    centre = white[random.randint(len(white))]
    away = np.linalg.norm(np.moveaxis(np.indices(scan.shape[1:]), 0, -1) - centre, axis=-1)
    radius = (3 * ml * 1000 / (4 * np.pi)) ** (1 / 3)  # mm
    share = np.clip(radius + 0.5 - away, 0.0, 1.0)
    return painted(scan, "t1", share, random), like(scan, away <= radius)


def write_contrasts(folder: Path) -> Path:
    """Write the datalist of the other contrasts and its scans; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, subject in enumerate(tqdm(HEALTHY["calibration"][:8])):
        random = np.random.RandomState([19, number])
        brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
        for healthy in in_other_contrasts(subject, brain, folder, random):
            modality = healthy["modality"]
            scan, mask = lesioned(read_volume(folder / healthy["image"]), modality, random)
            cases.append(diseased(scan, mask, modality, f"{healthy['subject']}_lesion", folder))
    return write_datalist(folder / "contrasts.json", cases)


def write_quality(folder: Path) -> tuple[Path, Path]:
    """Write the datalists of the people that test, with one lesion and with small ones, and their scans; the same every time."""
    set_determinism(0)
    folder.mkdir(parents=True, exist_ok=True)
    cases, small = [], []
    for number, subject in enumerate(tqdm(HEALTHY["test"])):
        random = np.random.RandomState([18, number])
        brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
        healthy = save(brain, folder / f"{subject}_t1.nii.gz")
        scan, mask = lesioned(brain, "t1", random)
        cases.append(diseased(scan, mask, "t1", f"{subject}_lesion", folder, healthy=healthy))

        random = np.random.RandomState([20, number])
        values = np.asarray(brain[0])
        bright = values > 0.65 * np.percentile(values[values > 0], 99)
        white = np.argwhere(binary_erosion(bright, iterations=2))
        for ml in SMALL_ML:
            scan, mask = with_ball(brain, white, ml, random)
            small.append(diseased(scan, mask, "t1", f"{subject}_{ml:g}ml", folder))
    return write_datalist(folder / "datalist.json", cases), write_datalist(folder / "small.json", small)


def write_datalist(path: Path, cases: list[dict]) -> Path:
    path.write_text(json.dumps({"test": cases}, indent=1))
    return path


if __name__ == "__main__":
    print(*write_quality(Path(sys.argv[1])), write_contrasts(Path(sys.argv[1])))
