"""The data of the released comparison: ``PYTHONPATH=bundle python -m studies.comparison runs/comparison_data``.

Written: ``datalist.json``, and ``t1.json`` and ``t1_t2.json`` with its T1w, and T1w and T2w, alone, for ``run comparing``, and
their scans, brain-extracted, at 1 mm.

- ``training``: the T1w of the people of ``healthy_split.json`` that train, and each of them as T2w, FLAIR and CT, which are made of
  the T1w by contrast curves: nobody here has a real healthy one;
- ``validation``: the people that calibrate, healthy, and six of them with a simulated lesion;
- ``test``: the people that test, healthy and with simulated lesions and cavities, and the real scans of `studies.real_scans`;
- ``label_maps.json``, for methods that are shown generated samples: the label maps that UNA's training has.

A simulated lesion is a fluid anomaly, which is blended into the scan with an intensity that its modality shows in disease. The
painting differs from that of UNA's training (a constant level instead of a shift of the tissue), the shape does not.
"""

import json
import sys
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.utils import set_determinism
from scripts.fluid import RandFluidAnomaly
from scripts.volumes import read_volume
from tqdm import tqdm

from . import SHARED
from .healthy_cases import diseased, entry, extracted, in_other_contrasts, like, save, with_cavity
from .real_scans import write_real_scans
from .training_data import HEALTHY, HELD_OUT, label_maps

# Levels of a lesion in shares of the scan's 99th percentile.
LEVELS = {
    "t1": [(0.15, 0.35), (0.35, 0.5)],
    "t2": [(0.75, 1.0)],
    "flair": [(0.8, 1.1)],
    "ct": [(0.2, 0.35), (0.75, 1.0)],
}
LESION_ML = (0.5, 100.0)
OTHERS = 4  # people whose healthy T2w, FLAIR and CT are judged; all of them are judged as T1w


def with_lesion(
    scan: MetaTensor, modality: str, ml: float, random: np.random.RandomState
) -> tuple[MetaTensor, MetaTensor]:
    """The scan with one fluid anomaly of about a volume, and its mask.

    Args:
        scan: brain-extracted, 1 mm.
        modality: whose levels are taken.
        ml: the volume; the anomaly is thresholded so that it has it.
        random: source of all draws.
    """
    values = np.asarray(scan[0])
    brain = values > 0
    fluid = RandFluidAnomaly(
        cell_size=100.0,
        percentile=(97.0, 99.9),
        velocity_scale=500.0,
        diffusivity_scale=1.0,
        num_times=(4, 10),
        taper=20.0,
    )
    fluid.set_random_state(state=random)
    spread = np.asarray(fluid(like(scan, brain))[0])
    order = np.sort(spread[brain])
    cut = max(float(order[-min(len(order), int(ml * 1000))]), 1e-3)
    share = np.clip(spread / cut, 0.0, 1.0) ** 2
    return painted(scan, modality, share, random), like(scan, brain & (spread >= cut))


def painted(scan: MetaTensor, modality: str, share: np.ndarray, random: np.random.RandomState) -> MetaTensor:
    """The scan with a lesion of one intensity, which has a share of every voxel, ``(X, Y, Z)`` in [0, 1]."""
    values = np.asarray(scan[0])
    brain = values > 0
    low, high = LEVELS[modality][random.randint(len(LEVELS[modality]))]
    level = random.uniform(low, high) * np.percentile(values[brain], 99)
    texture = level * (1 + 0.05 * random.normal(size=values.shape))
    return like(scan, np.where(brain, values * (1 - share) + texture * share, values))


def write_comparison(folder: Path) -> Path:
    """Write the datalist and its scans; the same every time."""
    set_determinism(0)
    folder.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[dict]] = {"training": [], "validation": [], "test": []}
    for section, kind in (("training", "training"), ("validation", "calibration"), ("test", "test")):
        for number, subject in enumerate(tqdm(HEALTHY[kind], desc=section)):
            random = np.random.RandomState([len(section), number])
            brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
            others = in_other_contrasts(subject, brain, folder, random)
            healthy = [entry(save(brain, folder / f"{subject}_t1.nii.gz"), "t1", diseased=False)]
            if section == "training" or number < OTHERS:
                healthy += others
            lists[section] += healthy
            if section == "training":
                continue
            wanted = [("t1", "t2", "flair", "ct")[number % 4]]
            if section == "test":
                wanted = ["t1", ("t2", "flair", "ct")[number % 3]]
            for modality in wanted if section == "test" or number < 6 else []:
                ml = LESION_ML[0] * (LESION_ML[1] / LESION_ML[0]) ** random.uniform()
                scan = read_volume(folder / f"{subject}_{modality}.nii.gz")
                painted, mask = with_lesion(scan, modality, ml, random)
                lists[section].append(diseased(painted, mask, modality, f"{subject}_lesion_{modality}", folder))
            if section == "test" and number % 2 == 0:
                filled, cavity = with_cavity(brain, 20.0 * 3 ** (number / 4), number % 4 == 0, random)
                lists["test"].append(diseased(filled, cavity, "t1", f"{subject}_cavity_t1", folder))
    real = json.loads(write_real_scans(folder / "real").read_text())["test"]
    for scan in real:
        files = {key: f"real/{scan[key]}" for key in ("image", "lesion") if key in scan}
        lists["test"].append({**{k: v for k, v in scan.items() if k != "anatomy"}, **files})
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps(lists, indent=1))
    for modalities in (["t1"], ["t1", "t2"]):
        part = {section: [scan for scan in scans if scan["modality"] in modalities] for section, scans in lists.items()}
        (folder / f"{'_'.join(modalities)}.json").write_text(json.dumps(part, indent=1))
    maps = {"training": [subject for subject in label_maps() if subject["subject"] not in HELD_OUT]}
    (folder / "label_maps.json").write_text(json.dumps(maps, indent=1))
    return datalist


if __name__ == "__main__":
    print(write_comparison(Path(sys.argv[1])))
