"""Real pairs of contrasts for the bank and the training: ``PYTHONPATH=bundle python -m studies.pairs runs/pairs``.

Five people whose T1w, T2w and FLAIR (one of them without a FLAIR) are registered to each other by ``run preprocessing``. Written:
``datalist.json`` for ``run banking``. A lesion that was traced is taken as it is. Of the other patients what the shipped UNA marks
at half of its limit in their FLAIR is taken for their lesions. The healthy person has an empty mask.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scripts.config import from_config
from scripts.methods import Guest
from scripts.saving import save_volume, write_whole
from scripts.volumes import on_grid, read_volume
from tqdm import tqdm

from . import SHARED

SCANS = {
    "sub-ms07": {"T1w": "ms_mni_patient07/t1", "T2w": "ms_mni_patient07/t2", "FLAIR": "ms_mni_patient07/flair"},
    "sub-ms01": {name: f"ms_raw/patient01/study1_{name.replace('w', 'W')}" for name in ("T1w", "T2w", "FLAIR")},
    "sub-ms12": {name: f"ms_raw/patient12/study1_{name.replace('w', 'W')}" for name in ("T1w", "T2w", "FLAIR")},
    "sub-p04": {name: f"pairs/sub-p04_{name}" for name in ("T1w", "T2w", "FLAIR")},
    "sub-t02": {"T1w": "pairs/sub-t02_T1w", "T2w": "healthy_t2_flair/sub-t02_T2w"},
}
LESIONS = {"sub-ms07": "ms_mni_patient07/lesion"}
HEALTHY = ("sub-t02",)
NEARLY = 0.5  # of the limit, above which something may be a lesion


def marked(image: str, modality: str, guest: Guest, prepare) -> MetaTensor:
    """What is nearly a lesion in a scan, on the working grid, 0 or 1."""
    data = prepare({"image": image, "modality": modality, "subject": Path(image).stem})
    return MetaTensor((guest(data)["score"] > NEARLY).float(), affine=data["scan"].affine)


def write_pairs(folder: Path, workers: int) -> Path:
    """Prepare the scans, and write ``datalist.json``."""
    raw, prepared = folder / "raw", folder / "prepared"
    for subject, scans in SCANS.items():
        (raw / subject).mkdir(parents=True, exist_ok=True)
        for name, source in scans.items():
            shutil.copyfile(SHARED / f"{source}.nii.gz", raw / subject / f"{subject}_{name}.nii.gz")
    settings = {"input": str(raw), "output_dir": str(prepared), "workers": workers}
    from_config("preprocess.yaml", "cohort", settings)()
    prepare, guest = from_config("evaluation.yaml", "preparation", {}), Guest("una", {})
    entries = json.loads((prepared / "datalist.json").read_text())["training"]
    for entry in tqdm(entries, desc="lesions"):
        subject = entry["subject"]
        t1 = read_volume(prepared / entry["t1"])
        if subject in LESIONS:
            lesion = on_grid(read_volume(SHARED / f"{LESIONS[subject]}.nii.gz"), t1, "nearest")
        else:
            lesion = MetaTensor(torch.zeros_like(t1.as_tensor()), affine=t1.affine)
        if subject not in (*LESIONS, *HEALTHY):
            lesion = on_grid(marked(str(prepared / entry["flair"]), "flair", guest, prepare), t1)
        file = folder / f"{subject}_lesion.nii.gz"
        save_volume(MetaTensor((lesion > 0.5).float(), affine=t1.affine), file, np.uint8)
        files = {key: str(prepared / entry[key]) for key in ("t1", "t2", "flair", "label") if key in entry}
        entry.update(files, lesion=str(file))
    datalist = folder / "datalist.json"
    write_whole(datalist, json.dumps({"training": entries}, indent=1))
    return datalist


if __name__ == "__main__":
    print(write_pairs(Path(sys.argv[1]).resolve(), workers=2))
