"""The data behind the shipped weights, from the shared data: ``PYTHONPATH=bundle python -m studies.training_data runs/weights``.

Held out for validation: a label map of each kind, Colin27, every tenth lesion mask. Of the 54 healthy T1w only those that train
by ``healthy_split.json`` are in it, of the 127 people of all ages those that train by `studies.aged`. Five people of
`studies.pairs` train with all of their contrasts, one of whom `studies.real_scans` has, too; Colin27 only validates.
Origins: the README of ``../shared/data``, and ``bundle/docs/data_license.txt``.
"""

import json
import shutil
import sys
from pathlib import Path

from scripts.config import from_config
from scripts.data import load_datalist, write_sample_subject
from scripts.jobs import Crew
from scripts.saving import write_whole

from . import SHARED, aged
from .pairs import write_pairs

SCANS = {  # of healthy people, with a label map of the same person where there is one
    "bert": {"T1w.mgz": "paired_t1_labels/bert_brain.mgz", "aseg.mgz": "paired_t1_labels/bert_aseg.mgz"},
    "bitmap": {"T1w.nii.gz": "templates/healthy_t1_0.8mm.nii.gz"},
    "studyforrest": {"T1w.nii.gz": "templates/healthy_t1_head_studyforrest.nii.gz"},
    "colin27": {"T1w.nii.gz": "templates/colin27_t1_1mm.nii.gz"},
}
HEALTHY = json.loads((Path(__file__).parent / "healthy_split.json").read_text())
HELD_OUT = ("training_seg_16", "brain4_labels", "sub-colin27")
EVERY = 10  # of the masks, one is held out


def label_maps() -> list[dict[str, str]]:
    """Entries of the label maps that have no scan."""
    return [
        {"subject": file.name.removesuffix(".nii.gz"), "label": str(file)}
        for kind in ("label_maps", "label_maps_brain")
        for file in sorted((SHARED / kind).glob("*.nii.gz"))
    ]


def write_training_data(folder: Path, workers: int) -> None:
    """Prepare the scans, and write ``datalist.json`` and ``masks.json``. Masks are placed by affines."""
    for subject, files in SCANS.items():
        (folder / "raw" / subject).mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            shutil.copyfile(SHARED / source, folder / "raw" / subject / f"{subject}_{name}")
    for subject in HEALTHY["training"]:
        (folder / "raw" / subject).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(
            SHARED / f"healthy_t1w/{subject}_T1w.nii.gz", folder / "raw" / subject / f"{subject}_T1w.nii.gz"
        )
    prepared = folder / "prepared"
    from_config(
        "preprocess.yaml", "cohort", {"input": str(folder / "raw"), "output_dir": str(prepared), "workers": workers}
    )()
    subjects = label_maps()
    subjects += load_datalist(prepared / "datalist.json", "training")
    subjects += load_datalist(write_sample_subject(folder / "sample_subject"), "training")
    people = aged.people()["training"]
    subjects += Crew(workers).map(aged.write_subject, folder / "aged", people, desc="people of all ages", unit="person")
    subjects += load_datalist(write_pairs(folder / "pairs", workers), "training")
    sections = {
        "training": [subject for subject in subjects if subject["subject"] not in HELD_OUT],
        "validation": [subject for subject in subjects if subject["subject"] in HELD_OUT],
    }
    write_whole(folder / "datalist.json", json.dumps(sections, indent=1))
    masks = [
        str(file)
        for kind in ("lesion_masks", "lesion_masks_acute")
        for file in sorted((SHARED / kind).glob("*.nii.gz"))
    ]
    held_out = masks[::EVERY]
    split = {"training": [mask for mask in masks if mask not in held_out], "held_out": held_out}
    write_whole(folder / "masks.json", json.dumps(split, indent=1))


if __name__ == "__main__":
    write_training_data(Path(sys.argv[1]).resolve(), workers=2)
