"""Healthy T2w made of label maps, beside those made of T1w.

``PYTHONPATH=bundle python -m studies.label_map_t2 runs/comparison_data`` needs the folder of ``studies.comparison``, and writes two
datalists there for ``run comparing``: ``t2.json`` with the T2w of ``datalist.json`` alone, and ``t2_label_maps.json``, whose
training also holds `DRAWS` T2w of each of the label maps that train.
"""

import json
import sys
from pathlib import Path

from scripts.config import from_config
from scripts.labels import TrimLabelsd
from tqdm import tqdm

from .healthy_cases import cleaned_label_map, entry, of_label_map, save

DRAWS = 2


def write_label_map_t2(folder: Path) -> None:
    lists = json.loads((folder / "datalist.json").read_text())
    t2 = {section: [scan for scan in scans if scan["modality"] == "t2"] for section, scans in lists.items()}
    (folder / "t2.json").write_text(json.dumps(t2, indent=1))
    labels = from_config("generator.yaml", "labels", {})
    # A label map reaches to the skull, and a brain extraction does not.
    trim = TrimLabelsd("label", [24], from_config("generator.yaml", "csf_closing", {}))
    for number, subject in enumerate(tqdm(json.loads((folder / "label_maps.json").read_text())["training"])):
        label_map = trim({"label": cleaned_label_map(subject["label"], labels)})["label"]
        for draw in range(DRAWS):
            volume = of_label_map(label_map, "t2", labels, seed=DRAWS * number + draw)
            image = save(volume, folder / f"{subject['subject']}_{draw}_t2.nii.gz")
            t2["training"].append(entry(image, "t2", diseased=False))
    (folder / "t2_label_maps.json").write_text(json.dumps(t2, indent=1))


if __name__ == "__main__":
    write_label_map_t2(Path(sys.argv[1]))
