"""A lesion or a coil: ``PYTHONPATH=bundle python -m studies.bright runs/healthy runs/bright`` for ``run judging``.

The first folder is that of `studies.healthy_cases`. Each of the eight people that test gets one bright lesion of 20 to 200 ml with
a soft border, in FLAIR or in T2w, once with an even coil and once with a severe bias field (Table B.1; of those that are drawn,
the first whose logarithm has a standard deviation above 0.25). Written: ``datalist.json``, the scans and their masks.
"""

import json
import sys
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scripts.appearance import RandGridBiasField
from scripts.volumes import read_volume
from tqdm import tqdm

from .healthy_cases import BIAS_FIELDS, diseased, like
from .training_data import HEALTHY

BRIGHT_ML = (20.0, 200.0)
TISSUE = {"flair": 80, "t2": 60}  # percentile of the brain that is about gray matter
BRIGHTER = (1.35, 1.8)  # than that
UNEVEN = 0.25  # least standard deviation of a severe field's logarithm


def with_bright_lesion(
    scan: MetaTensor, ml: float, tissue: float, random: np.random.RandomState
) -> tuple[MetaTensor, MetaTensor]:
    """The scan, brain-extracted at 1 mm, with one bright lesion of a volume, and its mask."""
    values = np.asarray(scan[0])
    brain = values > 0
    places = np.argwhere(distance_transform_edt(brain) > 16)
    away = np.linalg.norm(np.moveaxis(np.indices(brain.shape), 0, -1) - places[random.randint(len(places))], axis=-1)
    rough = gaussian_filter(random.normal(size=brain.shape), 6.0)
    away += 6.0 * rough / rough.std()
    lesion = brain & (away <= np.sort(away[brain])[int(ml * 1000)])
    share = gaussian_filter(lesion.astype(float), random.uniform(1.0, 4.0))
    grain = gaussian_filter(random.normal(size=brain.shape), 2.0)
    level = np.percentile(values[brain], tissue) * random.uniform(*BRIGHTER) * (1 + 0.08 * grain / grain.std())
    return like(scan, np.where(brain, values * (1 - share) + level * share, 0.0)), like(scan, lesion)


def with_severe_field(scan: MetaTensor, seed: int) -> MetaTensor:
    inside = np.asarray(scan[0]) > 0
    while True:
        field = RandGridBiasField(*BIAS_FIELDS["severe"]).set_random_state(seed)
        found = field(scan)
        ratio = np.asarray(found[0])[inside] / np.asarray(scan[0])[inside]
        if np.log(np.maximum(ratio, 1e-6)).std() > UNEVEN:
            return found
        seed += 1


def write_bright(healthy: Path, folder: Path) -> Path:
    """Write the datalist and its scans; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    cases, (low, high) = [], BRIGHT_ML
    for number, subject in enumerate(tqdm(HEALTHY["test"])):
        modality, random = ("flair", "t2")[number % 2], np.random.RandomState([46, number])
        ml = low * (high / low) ** (number / (len(HEALTHY["test"]) - 1))
        scan, mask = with_bright_lesion(
            read_volume(healthy / f"{subject}_{modality}.nii.gz"), ml, TISSUE[modality], random
        )
        for coil, image in {"even": scan, "uneven": with_severe_field(scan, 1000 * number)}.items():
            cases.append(diseased(image, mask, modality, f"{subject}_{modality}_{coil}", folder))
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"test": cases}, indent=1))
    return datalist


if __name__ == "__main__":
    print(write_bright(*map(Path, sys.argv[1:])))
