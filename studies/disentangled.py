"""What disentangled anatomy reaches: ``PYTHONPATH=bundle python -m studies.disentangled runs/comparison_data runs/anatomy``.

The first folder is that of `studies.comparison`. Written to the second, with ``summary.json``:

- ``agreement.csv``: Dice of the tissue maps of two contrasts of one person: real T1w, T2w and FLAIR of a patient with multiple
  sclerosis, and pairs of held-out label maps in random contrasts;
- ``restoration.csv``: L1 and SSIM in the brain of healthy test scans, of what their edges alone tell, and of the mean brain of
  their modality (the Gaussian atlas), and the cosine of the modality vectors of scan and restoration;
- ``pictures.png``: scans, tissue maps, edges, restorations and scores.

A third argument names other weights than the shipped ones, ``method.pt`` of a training.
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from scripts.config import from_config
from scripts.data import ScanCache, find_scans
from scripts.methods import Guest
from scripts.similarity import ssim_map
from scripts.volumes import on_grid
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from .training_data import HELD_OUT, label_maps

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TISSUES = ("csf", "gray_matter", "white_matter")
PAIRS = 12  # draws of held-out label maps
SHOWN = ("ms_t1", "ms_t2", "ms_flair", "stroke_t2", "sub-d01_lesion_t1", "sub-d05_t1")


def tissue_map(network: torch.nn.Module, scan: torch.Tensor) -> torch.Tensor:
    """Number of the tissue in every voxel, ``(1, X, Y, Z)``."""
    with torch.no_grad():
        return network.anatomy(torch.as_tensor(scan)[None].float())[0].argmax(dim=1).float()


def dice(one: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    values = compute_dice(*(one_hot(volume[None], 4) for volume in (one, other)), include_background=False)[0]
    return dict(zip(TISSUES, values.tolist()))


def agreement(network: torch.nn.Module, cases: dict[str, dict], folder: Path) -> pd.DataFrame:
    rows = []
    maps = {
        key: MetaTensor(tissue_map(network, cases[key]["scan"]), affine=cases[key]["scan"].affine)
        for key in ("ms_t1", "ms_t2", "ms_flair")
    }
    for key in ("ms_t2", "ms_flair"):
        moved = on_grid(maps[key], maps["ms_t1"], "nearest")
        rows.append({"pair": f"ms_t1, {key}", "kind": "real", **dice(maps["ms_t1"].as_tensor(), moved.as_tensor())})
    held_out = {"training": [subject for subject in label_maps() if subject["subject"] in HELD_OUT]}
    (folder / "held_out.json").write_text(json.dumps(held_out))
    settings = {"datalist": str(folder / "held_out.json"), "patch_size": [80, 96, 80], "background_prob": 0.0}
    pairs = from_config("generator.yaml", "pairs", {**settings, "shares": {"synthetic": 1.0}, "anomaly_prob": 0.0})
    for number in tqdm(range(PAIRS), desc="pairs"):
        pair = pairs[number]
        one, other = (tissue_map(network, pair[key]) for key in ("intact", "partner"))
        rows.append({"pair": f"draw {number}", "kind": "held-out label maps", **dice(one, other)})
        truth = dice(one, torch.as_tensor(pair["tissues"]))
        rows.append({"pair": f"draw {number}", "kind": "held-out label maps, and the truth", **truth})
    return pd.DataFrame(rows)


def restoration(guest: Guest, atlas: Guest, cases: dict[str, dict]) -> pd.DataFrame:
    network, rows = guest.method.network, []
    for name, case in tqdm(cases.items(), desc="healthy scans"):
        scan, inside = torch.as_tensor(case["scan"]).float(), torch.as_tensor(case["brain"]) > 0
        drawn = torch.as_tensor(guest(case)["pred_healthy"])
        row = {"scan": name, "modality": case["modality"]}
        for key, image in (("edges", drawn), ("mean_brain", torch.as_tensor(atlas(case)["pred_healthy"]))):
            row[f"l1_{key}"] = float((scan - image).abs()[inside].mean())
            row[f"ssim_{key}"] = float(ssim_map(scan * inside, image * inside, 7, 1.5)[inside].mean())
        with torch.no_grad():
            vectors = [network.modality(image[None], network.anatomy(image[None])[1]) for image in (scan, drawn)]
        row["cosine"] = float(cosine_similarity(*vectors))
        rows.append(row)
    return pd.DataFrame(rows)


def pictures(guest: Guest, cases: dict[str, dict], path: Path) -> None:
    network, known = guest.method.network, [name for name in SHOWN if name in cases]
    figure, axes = plt.subplots(len(known), 5, figsize=(11, 2.4 * len(known)))
    for row, name in zip(axes, known):
        case = cases[name]
        found = guest(case)
        z = int(np.asarray(found["score"][0]).sum(axis=(0, 1)).argmax()) if "lesion" in name else None
        z = case["scan"].shape[-1] * 3 // 5 if z is None else z
        with torch.no_grad():
            edges = network.edges(network.anatomy(torch.as_tensor(case["scan"])[None].float())[0])[0]
        volumes = (case["scan"], tissue_map(network, case["scan"]), edges, found["pred_healthy"], found["score"])
        for axis, volume, title in zip(row, volumes, ("scan", "tissues", "edges", "healthy, after its edges", "score")):
            high = float(np.quantile(np.asarray(volume[0]), 0.999)) if title == "score" else None
            axis.imshow(np.asarray(volume[0, :, :, z]).T[::-1, ::-1], cmap="inferno" if high else "gray", vmax=high)
            axis.set(xticks=[], yticks=[], title=title if row is axes[0] else "")
        row[0].set_ylabel(name, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main(data: Path, folder: Path, checkpoint: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"generator_datalist": str(data / "label_maps.json"), "cases": []}
    guest = Guest("disentangled", settings | ({"checkpoint": checkpoint} if checkpoint else {}))
    preparation = from_config("evaluation.yaml", "preparation", {})
    entries = find_scans(data / "datalist.json", ["test"])
    cases = {case["subject"]: case for case in ScanCache(entries, preparation, folder / "prepared")}
    healthy = {e["subject"] for e in entries if e.get("diseased") is False}
    atlas = Guest("atlas", {"datalist": str(data / "datalist.json"), "cache_dir": str(folder / "prepared")})
    atlas.method.fit(atlas["cases"])
    agree = agreement(guest.method.network, cases, folder)
    restored = restoration(guest, atlas, {name: case for name, case in cases.items() if name in healthy})
    pictures(guest, cases, folder / "pictures.png")
    agree.to_csv(folder / "agreement.csv", index=False)
    restored.to_csv(folder / "restoration.csv", index=False)
    tables = agree.groupby("kind")[list(TISSUES)].mean(), restored.groupby("modality").mean(numeric_only=True)
    for table in tables:
        print(table.round(3).to_string())
    summary = {
        name: json.loads(table.to_json(orient="index")) for name, table in zip(("agreement", "restoration"), tables)
    }
    (folder / "summary.json").write_text(json.dumps({"weights": guest.about["weights"], **summary}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
