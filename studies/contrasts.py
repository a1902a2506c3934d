"""The contrasts of training beside real ones: ``PYTHONPATH=bundle python -m studies.contrasts runs/weights runs/contrasts``.

The first folder is that of `studies.training_data`. Written:

- ``targets.png``: intensities of four tissues in the targets of two kinds of people: as acquired, with an even coil, in the one
  contrast of ``target_contrast`` in ``configs/sizes/released.yaml``;
- ``contrasts.png``, ``contrasts.csv``: medians of three tissues in real T2w and FLAIR, beside those of 300 draws of the generator.
  No label map is at hand for the real scans: their tissues are those of the healthy T1w that UNA draws.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from scripts.appearance import ScaleToWhiteMatter, TypicalContrast
from scripts.config import CONFIGS, from_config, parse
from scripts.methods import Guest
from scripts.preprocessing import tissue_labels
from scripts.volumes import read_volume
from tqdm import tqdm

from . import SHARED, aged
from .frontier import LESIONS, MODALITY

RELEASED = yaml.safe_load((CONFIGS / "sizes/released.yaml").read_text())["generator"]
TISSUES = {"CSF": (24,), "gray matter": (3, 42), "white matter": (2, 41)}  # of `tissue_labels`
DRAWS = 300


def figure_of_targets(data: Path, path: Path, number: int = 8) -> None:
    """Densities of the tissues, a row a kind of people, a column a step."""
    labels = from_config("generator.yaml", "labels", {})
    typical, to_white = TypicalContrast(labels, RELEASED["target_contrast"]), ScaleToWhiteMatter()
    entries = json.loads((data / "datalist.json").read_text())["training"]
    kinds = {
        "20 to 82 years, 3 T": [e for e in entries if e["subject"] in aged.people()["training"]],
        "other scanners": [e for e in entries if "t1" in e and e["subject"] not in aged.people()["training"]],
    }
    titles = ("as acquired", "even coil, white matter at 0.75", "one contrast")
    figure, panels = plt.subplots(len(kinds), len(titles), figsize=(13, 6), sharex=True, sharey=True)
    for row, (kind, people) in zip(panels, kinds.items()):
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        for entry in people[:: max(1, len(people) // number)]:
            label = labels.clean(read_volume(entry["label"]))
            even = to_white(read_volume(entry["t1"]))
            file = aged.FOLDER / f"{entry['subject']}_T1w.nii.gz"
            # The others were made even when they were prepared.
            raw = to_white(read_volume(file)) if file.is_file() else even
            for title, volume in zip(titles, (raw, even, typical(even, label))):
                for tissue in RELEASED["target_contrast"]:
                    values = np.asarray(volume)[np.asarray(labels.mask(label, tissue))]
                    found.setdefault((title, tissue), []).append(values[::7])
        for axes, title in zip(row, titles):
            for tissue in RELEASED["target_contrast"]:
                values = np.concatenate(found[title, tissue])
                axes.hist(values, bins=60, range=(0, 1), density=True, histtype="step", label=tissue.replace("_", " "))
            axes.set_title(f"{kind}: {title}", fontsize=9)
        row[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def tissue_medians(scan, t1, brain) -> dict[str, float]:
    found = np.asarray(tissue_labels(t1, brain, np.eye(4))[0])
    return {name: float(np.median(np.asarray(scan[0])[np.isin(found, numbers)])) for name, numbers in TISSUES.items()}


def real_scans() -> list[tuple[str, Path, str]]:
    """T2w and FLAIR of patients and of healthy people: name, file and modality."""
    named = [(name, image, MODALITY[name.split("_")[1]]) for name, (image, _) in LESIONS.items() if "T1w" not in name]
    healthy = sorted((SHARED / "healthy_t2_flair").glob("*.nii.gz"))
    return named + [(file.name.split(".")[0], file, "flair" if "FLAIR" in file.name else "t2") for file in healthy]


def table_of_contrasts(data: Path) -> pd.DataFrame:
    """A row a real scan, and a row a draw of the generator whose contrast is that of a T2w or FLAIR."""
    prepare, guest = from_config("evaluation.yaml", "preparation", {}), Guest("una")
    rows = []
    for name, file, modality in tqdm(real_scans()):
        case = prepare({"image": str(file), "modality": modality, "subject": name})
        healthy = guest.method.named(case)["pred_healthy"]
        rows.append({"scan": name, "modality": modality, **tissue_medians(case["scan"], healthy, case["brain"])})
    people = json.loads((data / "datalist.json").read_text())
    few = data / "few.json"
    few.write_text(json.dumps({**people, "training": people["training"][::12]}))
    settings = {**RELEASED, "anomaly_prob": 0.0, "corruption_weights": [1.0, 0.0, 0.0], "datalist": str(few)}
    samples = parse(["generator.yaml"], {"voxel_size": 2.0, "patch_size": [64, 80, 64], **settings}).get_parsed_content(
        "samples"
    )
    for number in tqdm(range(DRAWS)):
        sample = samples[number]
        medians = tissue_medians(sample["scan"], sample["healthy"], sample["brain"])
        modality = "t2" if medians["CSF"] > medians["gray matter"] > medians["white matter"] else None
        if modality is None and medians["CSF"] < medians["white matter"] < medians["gray matter"]:
            modality = "flair"
        if modality is not None:
            rows.append({"scan": "draw", "modality": modality, **medians})
    return pd.DataFrame(rows)


def figure_of_contrasts(table: pd.DataFrame, path: Path) -> None:
    figure, panels = plt.subplots(2, 2, figsize=(10, 9))
    for row, (modality, part) in zip(panels, table.groupby("modality")):
        for axes, other in zip(row, ("CSF", "gray matter")):
            draws = part[part["scan"] == "draw"]
            axes.plot(draws["white matter"], draws[other], ".", color="0.7", label="generator")
            for name, real in part[part["scan"] != "draw"].set_index("scan").iterrows():
                axes.plot(real["white matter"], real[other], "o", markersize=5)
                axes.annotate(name, (real["white matter"], real[other]), fontsize=7)
            axes.set(title=modality, xlabel="median of white matter", ylabel=f"median of {other}")
            axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def write_contrasts(data: Path, folder: Path) -> pd.DataFrame:
    """Write the table and both figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figure_of_targets(data, folder / "targets.png")
    table = table_of_contrasts(data)
    table.to_csv(folder / "contrasts.csv", index=False)
    figure_of_contrasts(table, folder / "contrasts.png")
    return table


if __name__ == "__main__":
    found = write_contrasts(Path(sys.argv[1]), Path(sys.argv[2]))
    print(found[found["scan"] != "draw"].round(2).to_string(index=False))
