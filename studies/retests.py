"""Healthy people who are scanned twice, made of one scan: ``PYTHONPATH=bundle python -m studies.retests FOLDER runs/retests``.

FOLDER is that of `studies.healthy_cases`. Nobody here has two scans of a healthy person. So both are made of one: noise, a coil's
field, a contrast that differs a little, and the second time another pose and slices of 3 mm. The limit of ``run following``
rests on them. Written: the scans, and ``retests.json``, a datalist with two sessions of each person, T1w, T2w and FLAIR by turns.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import RandAdjustContrast
from scipy.spatial.transform import Rotation
from scripts.volumes import read_volume
from tqdm import tqdm

from .healthy_cases import degraded, save
from .training_data import HEALTHY

MODALITIES = ("t1", "t2", "flair")
MOVED = (6.0, 5.0)  # degrees and mm, standard deviations over three axes together


def pose(random: np.random.RandomState) -> np.ndarray:
    """A rigid motion on RAS mm."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(random.normal(size=3) * MOVED[0] / 3**0.5, degrees=True).as_matrix()
    motion[:3, 3] = random.normal(size=3) * MOVED[1] / 3**0.5
    return motion


def acquired(scan: MetaTensor, random: np.random.RandomState, thickness: int) -> MetaTensor:
    """One acquisition of a brain, with a contrast that differs a little."""
    gamma = RandAdjustContrast(prob=1.0, gamma=(0.93, 1.08)).set_random_state(state=random)
    return degraded(gamma(scan.clamp(min=0.0)), random, "medium", (0.5, 5.0), thickness)


def write_retests(healthy: Path, folder: Path) -> Path:
    """Write scans and datalist; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, subject in enumerate(tqdm(HEALTHY["calibration"])):
        random, modality = np.random.RandomState([7, number]), MODALITIES[number % len(MODALITIES)]
        scan = read_volume(healthy / f"{subject}_{modality}.nii.gz")
        moved = MetaTensor(scan.as_tensor(), affine=torch.as_tensor(pose(random)) @ scan.affine.double())
        for session, (volume, thickness) in enumerate(((scan, 1), (moved, 3)), start=1):
            name = f"{subject}_ses-{session}_{modality}.nii.gz"
            image = save(acquired(volume, random, thickness), folder / name)
            known = {"subject": subject, "session": f"ses-{session}", "modality": modality, "diseased": False}
            entries.append({**known, "image": image})
    path = folder / "retests.json"
    path.write_text(json.dumps({"test": entries}, indent=1))
    return path


if __name__ == "__main__":
    print(write_retests(*map(Path, sys.argv[1:])))
