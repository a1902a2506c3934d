"""The datalist of real scans that weights are judged on: ``PYTHONPATH=bundle python -m studies.real_scans runs/real_scans``.

None of them is trained on. See ``bundle/docs/README.md`` for what the weights reach, and the README of ``../shared/data`` for
the origin of each scan.
"""

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scripts.volumes import volume_stem

from . import SHARED


def to_hounsfield(units: np.ndarray) -> np.ndarray:
    """Undo the Cormack scale of the Clinical toolbox (C. Rorden et al., NeuroImage 2012), which stretches -100 to 100 HU."""
    return np.where(units <= 900, units - 1000, np.where(units <= 3100, (units - 900) / 11 - 100, units - 3000))


def write_real_scans(folder: Path) -> Path:
    """Copy the scans and their tracings to a folder, each file with a name of its own, beside ``datalist.json``."""
    folder.mkdir(parents=True, exist_ok=True)

    def copied(file: str, name: str) -> str:
        shutil.copyfile(SHARED / file, folder / name)
        return name

    patient = {"lesion": copied("ms_mni_patient07/lesion.nii.gz", "ms_lesion.nii.gz"), "anatomy": "ms_patient07"}
    average = {"diseased": False, "anatomy": "average"}
    scans = [
        {
            "image": copied(f"ms_mni_patient07/{modality}.nii.gz", f"ms_{modality}.nii.gz"),
            "modality": modality,
            **patient,
        }
        for modality in ("t1", "t2", "flair")
    ]
    stroke = {"lesion": copied("stroke_t2/lesion.nii.gz", "stroke_lesion.nii.gz")}
    scans.append({"image": copied("stroke_t2/t2.nii.gz", "stroke_t2.nii.gz"), "modality": "t2", **stroke})
    scans.append({"image": copied("templates/colin27_t1_1mm.nii.gz", "colin27_t1.nii.gz"), "modality": "t1", **average})
    mean_ct = nib.load(SHARED / "templates/ct_elderly_stripped_2mm.nii.gz")
    hounsfield = to_hounsfield(mean_ct.get_fdata()).astype(np.int16)
    nib.save(nib.Nifti1Image(hounsfield, mean_ct.affine), folder / "mean_ct.nii.gz")
    scans.append({"image": "mean_ct.nii.gz", "modality": "ct", **average})
    datalist = folder / "datalist.json"
    datalist.write_text(
        json.dumps({"test": [{"subject": volume_stem(scan["image"]), **scan} for scan in scans]}, indent=1)
    )
    return datalist


if __name__ == "__main__":
    print(write_real_scans(Path(sys.argv[1])))
