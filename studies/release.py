"""Put trained weights into the bundle: ``PYTHONPATH=bundle python -m studies.release runs/weights/run1 BANK.pt runs/weights``.

The averaged weights at the end of a training, in half precision, the bank of contrasts, and the list of what they were trained on.
A calibration belongs to the weights: run calibrating next, and copy its ``calibration.json`` beside them.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from scripts.learning.checkpoint import save_atomically
from scripts.saving import write_whole

from . import SHARED, aged, pairs
from .training_data import HEALTHY, SCANS

BUNDLE = Path(__file__).parents[1] / "bundle"


def source(entry: dict) -> str:
    """Where a subject of the datalist comes from, relative to the shared data."""
    name = entry["subject"].removeprefix("sub-")
    if name in SCANS:
        return next(iter(SCANS[name].values()))
    if entry["subject"] in aged.people()["training"]:
        return f"healthy_t1w_2mm/{entry['subject']}_T1w.nii.gz"
    if entry["subject"] in pairs.SCANS:
        return ", ".join(f"{file}.nii.gz" for file in pairs.SCANS[entry["subject"]].values())
    if entry["subject"] in HEALTHY["training"]:
        return f"healthy_t1w/{entry['subject']}_T1w.nii.gz"
    label = Path(entry["label"])
    return (
        str(label.relative_to(SHARED))
        if label.is_relative_to(SHARED)
        else "nilearn's ICBM 2009 templates (write_sample_subject)"
    )


def write_weights(run: Path, bank: Path) -> None:
    """Write ``models/model.pt`` and ``models/contrast_bank.pt``."""
    average = torch.load(run / "last.pt", map_location="cpu", weights_only=True)["average"]
    network = {name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"}
    # MONAI's DynUNet lists its layers twice; each is stored once.
    stored = {value.data_ptr(): value.half() for value in network.values()}
    save_atomically({name: stored[value.data_ptr()] for name, value in network.items()}, BUNDLE / "models/model.pt")
    shutil.copyfile(bank, BUNDLE / "models/contrast_bank.pt")


def write_list(data: Path) -> None:
    """Write ``docs/training_data.json``."""
    sections = json.loads((data / "datalist.json").read_text())
    masks = json.loads((data / "masks.json").read_text())
    known = {
        section: [{"subject": entry["subject"], "source": source(entry)} for entry in entries]
        for section, entries in sections.items()
    }
    content = {
        "about": "subjects and masks behind models/model.pt; paths are relative to the shared data folder; `python -m "
        "studies.training_data FOLDER` of the project makes their datalist. Masks were placed by affines",
        "sha256": hashlib.sha256((BUNDLE / "models/model.pt").read_bytes()).hexdigest(),
        "seed": ConfigParser.load_config_file(str(BUNDLE / "configs/sizes/released.yaml"))["seed"],
        **known,
        "traced_masks": {
            "training": len(masks["training"]),
            "held_out": [str(Path(mask).relative_to(SHARED)) for mask in masks["held_out"]],
        },
    }
    write_whole(BUNDLE / "docs/training_data.json", json.dumps(content, indent=1))


if __name__ == "__main__":
    run, bank, data = (Path(argument).resolve() for argument in sys.argv[1:])
    write_weights(run, bank)
    write_list(data)
