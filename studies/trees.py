"""What a neighbourhood tells of the T1w: ``PYTHONPATH=bundle python -m studies.trees runs/pairs/datalist.json D``.

Boosted trees learn the T1w from what lies around a voxel of a T2w or FLAIR (`scripts.neighbourhood.surroundings`), and draw the
scans of `studies.sharpness.cases`. They are taught by

- real pairs of the datalist (``run preprocessing``): one patient, the three patients of one scanner, all five people;
- the scan and T1w of the same person, in slabs of 16 mm, of which each is drawn by trees that learned from its neighbours: about
  the most that a neighbourhood can tell.

``D/trees.csv`` has a row a scan and teacher, with the figures of `scripts.evaluation.likeness`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_dilation
from scripts.appearance import ScaleToUnit, TypicalContrast
from scripts.config import from_config, parse
from scripts.evaluation import likeness
from scripts.neighbourhood import surroundings
from scripts.volumes import on_grid, read_volume
from sklearn.ensemble import HistGradientBoostingRegressor
from tqdm import tqdm

from .sharpness import cases

TEACHERS = {
    "one patient": ("sub-ms07",),
    "three patients of one scanner": ("sub-ms01", "sub-ms07", "sub-ms12"),
    "five people": None,
}
SLAB = 8  # voxels of 2 mm


def taught(features: Iterable[np.ndarray], values: Iterable[np.ndarray]) -> HistGradientBoostingRegressor:
    trees = HistGradientBoostingRegressor(max_iter=200, max_leaf_nodes=63, random_state=0)
    return trees.fit(np.concatenate(list(features)), np.concatenate(list(values)))


def teachers(datalist: str) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """By person and contrast: what lies around the voxels outside of lesions, and the T1w there."""
    generator = parse(["generator.yaml"], {"datalist": datalist})
    contrast = parse(["bank.yaml"], {}).get("target_contrast")
    typical = TypicalContrast(generator.get_parsed_content("labels"), contrast)
    known = {}
    for subject in generator.get_parsed_content("subjects"):
        inside = subject["label"] > 0
        sound = (subject["lesion"] <= 0.5)[inside].numpy()
        truth = typical(subject["t1"], subject["label"])[inside].numpy()
        for key in ("t2", "flair"):
            if key in subject:
                told = surroundings(ScaleToUnit()(subject[key] * inside).as_tensor(), inside.float().as_tensor(), 2.0)
                known[subject["subject"], key] = told.numpy()[sound], truth[sound]
    return known


def write_trees(datalist: str, folder: Path) -> pd.DataFrame:
    """Write ``trees.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs, prepare = teachers(datalist), from_config("evaluation.yaml", "preparation", {})
    learned = {
        (name, key): taught(
            *zip(*(pair for (who, what), pair in pairs.items() if what == key and (people is None or who in people)))
        )
        for name, people in TEACHERS.items()
        for key in ("t2", "flair")
    }
    rows = []
    for case in tqdm([case for case in cases() if case["modality"] in ("t2", "flair")]):
        data = prepare({"image": str(case["image"]), "modality": case["modality"], "subject": case["subject"]})
        inside = np.asarray(data["brain"][0]) > 0.5
        lesion = np.asarray(on_grid(read_volume(case["lesion"]), data["scan"])[0]) > 0.5
        sound = (inside & ~binary_dilation(lesion))[inside]
        real = np.asarray(on_grid(read_volume(case["t1"]), data["scan"])[0], dtype=np.float64)[inside]
        told = surroundings(data["scan"].as_tensor().float(), torch.from_numpy(inside)[None].float(), 2.0).numpy()
        drawn = {name: learned[name, case["modality"]].predict(told) for name in TEACHERS}
        even = np.indices(inside.shape)[1][inside] // SLAB % 2 == 0
        own = np.zeros(len(real))
        for half in (even, ~even):
            own[~half] = taught([told[sound & half]], [real[sound & half]]).predict(told[~half])
        for name, values in {**drawn, "slabs of the same person": own}.items():
            rows.append(
                {"scan": case["subject"], "taught by": name, **likeness(values[sound].astype(float), real[sound])}
            )
    table = pd.DataFrame(rows)
    table.to_csv(folder / "trees.csv", index=False)
    return table


if __name__ == "__main__":
    found = write_trees(sys.argv[1], Path(sys.argv[2]))
    for figure in ("correlation", "dice_gray"):
        print(figure)
        print(found.pivot(index="taught by", columns="scan", values=figure).round(2).to_string())
