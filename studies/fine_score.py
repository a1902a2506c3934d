"""Would a score on the scan's own grid find more?

``PYTHONPATH=bundle python -m studies.fine_score runs/frontier_lesions.json OUT.csv``. The unit of the score (`scan_error`) and the
contrast of the scan come from the working grid of 2 mm, interpolated. The difference is taken on the scan's own grid: from the
expected scan, interpolated or with the detail of the scan (`FineDetail`). A lesion grows from its core as on the
working grid, after a Gaussian of 0.7 or 1.2 voxels. Best Dice and average precision in the brain.
"""

import sys

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter, generate_binary_structure
from scripts.config import from_config
from scripts.data import find_scans
from scripts.methods import Guest
from scripts.residual import FineDetaild
from scripts.residual.fine_detail import prepared_factor
from scripts.residual.scan_error import scan_error
from scripts.residual.score import difference
from scripts.volumes import on_grid, read_volume
from skimage.morphology import reconstruction
from sklearn.metrics import average_precision_score, precision_recall_curve
from tqdm import tqdm


def judged(score: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Best Dice and average precision of the voxels of the brain."""
    precision, recall, _ = precision_recall_curve(truth, score)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return float(dice.max()), float(average_precision_score(truth, score))


def grown(score: np.ndarray, share: float, smoothing: float) -> np.ndarray:
    """`connected_score` with a smoothing of its own."""
    smooth = gaussian_filter(score.astype(np.float32), smoothing)
    return reconstruction(smooth, smooth / share, method="dilation", footprint=generate_binary_structure(3, 1))


def rows_of(scan: dict, prepare, una: Guest) -> list[dict]:
    data = prepare(scan)
    data |= una(data)
    original, brain = data["original"], data["brain"]
    bright = data["modality"] in una["bright_modalities"]
    expected = una["match"](data)["expected"]
    usual = scan_error(data["scan"] - expected, data["pred_healthy"], brain)

    inside = on_grid(brain, original)[0].numpy() > 0.5
    truth = on_grid(read_volume(scan["lesion"]), original, "nearest")[0].numpy()[inside] > 0.5
    sharp = (original.as_tensor() * prepared_factor(original, data["scan"], brain)).clamp(0.0, 1.0)
    smooth, unit = (on_grid(volume, original).as_tensor() for volume in (expected, usual))
    detailed = FineDetaild("expected")(data)["expected"].as_tensor()

    found = {"working grid": on_grid(data["score"], original)[0].numpy()}
    for name, reference in (("expected scan", smooth), ("with detail", detailed)):
        off = difference(sharp, reference, torch.from_numpy(inside)[None], bright) / unit.clamp(min=1e-3)
        for smoothing in (0.7, 1.2):
            found[f"{name}, {smoothing}"] = grown(off[0].numpy(), una["core_share"], smoothing)
    return [
        {"subject": scan["subject"], "score": name, **dict(zip(("best_dice", "ap"), judged(score[inside], truth)))}
        for name, score in found.items()
    ]


if __name__ == "__main__":
    prepare, una = from_config("evaluation.yaml", "preparation", {}), Guest("una", {"calibration": False})
    table = pd.DataFrame([row for scan in tqdm(find_scans(sys.argv[1])) for row in rows_of(scan, prepare, una)])
    table.to_csv(sys.argv[2], index=False)
    print(table.pivot(index="subject", columns="score", values="best_dice").round(2).to_string())
    print(table.groupby("score")[["best_dice", "ap"]].mean().round(3).to_string())
