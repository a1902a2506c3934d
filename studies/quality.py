"""Small and large simulated lesions, for the targets of quality in ``bundle/docs/README.md``.

``PYTHONPATH=bundle python -m studies.quality runs/quality`` writes ``datalist.json`` for ``run judging``. Each of the eight people
of ``healthy_split.json`` that test gets a lesion of 0.1 to 1 ml as T1w, T2w and FLAIR, and one of 2 to 50 ml as T1w. The lesions
are painted as those of `studies.comparison`; the healthy T1w is the truth of the reconstruction.

``PYTHONPATH=bundle python -m studies.quality runs/quality FOLDER`` prints what ``run judging`` wrote to that folder: how many
lesions were met by the mask, recall of their voxels, average precision, and in large lesions the PSNR of reconstruction, scan and
mirror.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from monai.utils import set_determinism
from scripts.volumes import read_volume
from tqdm import tqdm

from . import SHARED
from .comparison import with_lesion
from .healthy_cases import entry, extracted, in_other_contrasts, save
from .training_data import HEALTHY

SMALL_ML, LARGE_ML = (0.1, 1.0), (2.0, 50.0)


def write_quality(folder: Path) -> Path:
    """Write the datalist and its scans; the same every time."""
    set_determinism(0)
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, subject in enumerate(tqdm(HEALTHY["test"])):
        random = np.random.RandomState([18, number])
        brain = extracted(read_volume(SHARED / f"healthy_t1w/{subject}_T1w.nii.gz"))
        healthy = save(brain, folder / f"{subject}_t1.nii.gz")
        in_other_contrasts(subject, brain, folder, random)
        for size, modality in (("small", "t1"), ("small", "t2"), ("small", "flair"), ("large", "t1")):
            low, high = SMALL_ML if size == "small" else LARGE_ML
            scan = read_volume(folder / f"{subject}_{modality}.nii.gz")
            painted, mask = with_lesion(scan, modality, low * (high / low) ** random.uniform(), random)
            name = f"{subject}_{size}_{modality}"
            image = save(painted, folder / f"{name}.nii.gz")
            truth = save(mask, folder / f"{name}_mask.nii.gz", np.uint8)
            cases.append(entry(image, modality, lesion=truth, **({"healthy": healthy} if size == "large" else {})))
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"test": cases}, indent=1))
    return datalist


def summary(judged: Path) -> pd.DataFrame:
    """A row for each size and modality, from the ``cases.csv`` of ``run judging``."""
    cases = pd.read_csv(judged / "cases.csv")
    kind = cases["subject"].str.extract(r"_(?P<size>small|large)_(?P<scan>\w+)$")
    hit = cases["found_ml"] - cases["false_ml"]
    columns = {
        "met": (hit > 0).astype(float),
        "recall": hit / cases["true_ml"],
        "false_ml": cases["false_ml"],
        "average_precision": cases["auprc_score"],
        "of_brightness": cases[["auprc_bright", "auprc_dark"]].max(axis=1),
        **{name: cases[name] for name in cases if name.startswith("psnr_")},
    }
    return pd.DataFrame({"size": kind["size"], "scan": kind["scan"], **columns}).groupby(["size", "scan"]).mean()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(summary(Path(sys.argv[2])).round(3).to_string())
    else:
        print(write_quality(Path(sys.argv[1])))
