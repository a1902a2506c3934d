"""Whether the healthy T1w of a T2w or FLAIR is a T1w: ``PYTHONPATH=bundle python -m studies.likeness D ['{"NAME": SETTINGS}']``.

Three patients have a real T1w on the grid of their other scans (`studies.sharpness.cases`); Colin27 is healthy. For each row of
the second argument, by default UNA as it is shipped, ``D/likeness.csv`` has for every scan, on the working grid and outside of the
lesion:

- ``correlation`` with the real T1w, gray matter as a share of white matter in both, Dice of three classes of each (`likeness`);
- ``psnr``, ``ssim``: see `studies.sharpness`;
- ``lesion_drawn``, ``lesion_fine``: how much the lesion still differs from its surroundings in the healthy T1w as drawn and with
  the detail of the scan, as a share of the same in the real T1w.

``D/likeness.png`` shows scan, healthy T1w of every row with detail, and real T1w; white matter is as bright in all of them.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from monai.data import MetaTensor
from scipy.ndimage import binary_dilation, distance_transform_edt
from scripts.config import from_config
from scripts.evaluation import likeness, tissue_classes
from scripts.methods import Guest
from scripts.residual import FineDetaild
from scripts.volumes import on_grid, read_volume
from tqdm import tqdm

from .sharpness import cases, fidelity

NEAR, AROUND = 2.0, 8.0  # mm from a lesion, between which its surroundings lie


def lesion_contrast(image: np.ndarray, lesion: np.ndarray, brain: np.ndarray, voxel: float) -> float:
    """By how much the surroundings are brighter than the lesion, as a share of the 99th percentile of the brain."""
    away = distance_transform_edt(~lesion) * voxel
    around = brain & (away > NEAR) & (away <= AROUND)
    return float((image[around].mean() - image[lesion].mean()) / np.percentile(image[brain], 99))


def write_likeness(folder: Path, rows: dict[str, dict]) -> pd.DataFrame:
    """Write ``likeness.csv`` and ``likeness.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare, detail = from_config("evaluation.yaml", "preparation", {}), FineDetaild("pred_healthy")
    postprocess = from_config("evaluation.yaml", "postprocessing", {})
    guests = {name: Guest("una", settings) for name, settings in rows.items()}
    table, shown = [], []
    for case in tqdm(cases()):
        data = prepare({"image": str(case["image"]), "modality": case["modality"], "subject": case["subject"]})
        real = on_grid(read_volume(case["t1"]), data["scan"])
        brain = np.asarray(data["brain"][0]) > 0.5
        lesion = np.zeros_like(brain)
        if case["lesion"] is not None:
            lesion = np.asarray(on_grid(read_volume(case["lesion"]), data["scan"])[0]) > 0.5
        where = brain & ~binary_dilation(lesion, iterations=1)
        t1 = np.asarray(real[0], dtype=np.float64)
        pictures = []
        for name, guest in guests.items():
            found = {**data, **guest(data)}
            found["score"] = postprocess(found["score"], data["brain"])
            drawn = found["pred_healthy"]
            fine = detail(found)["pred_healthy"]
            row = {"row": name, "scan": case["subject"], "modality": case["modality"]}
            row |= likeness(np.asarray(drawn[0], dtype=np.float64)[where], t1[where])
            row["psnr"], row["ssim"] = fidelity(drawn, real, where)
            if lesion.any() and (true := lesion_contrast(t1, lesion, brain, 2.0)):
                seen = {"drawn": drawn, "fine": on_grid(fine, drawn)}
                for key, image in seen.items():
                    row[f"lesion_{key}"] = (
                        lesion_contrast(np.asarray(image[0], dtype=np.float64), lesion, brain, 2.0) / true
                    )
            table.append(row)
            pictures.append((name, fine))
        shown.append((case, data["original"], pictures, on_grid(read_volume(case["t1"]), data["original"])))
    figures = pd.DataFrame(table)
    figures.to_csv(folder / "likeness.csv", index=False)
    picture([one for one in shown if one[0]["modality"] in ("t2", "flair")], folder / "likeness.png")
    return figures


def picture(shown: list, path: Path) -> None:
    columns = 2 + len(shown[0][2])
    figure, panels = plt.subplots(len(shown), columns, figsize=(3.4 * columns, 3.9 * len(shown)), squeeze=False)
    for row, (case, scan, drawn, real) in zip(panels, shown):
        volumes = [("scan", scan), *((f"healthy T1w, {name}", image) for name, image in drawn), ("real T1w", real)]
        brain = np.asarray(drawn[0][1][0]) > 0
        for axes, (title, volume) in zip(row, volumes):
            draw(axes, volume, title, brain, window_of_t1w=title != "scan")
        row[0].set_ylabel(case["subject"])
    figure.tight_layout()
    figure.savefig(path, dpi=80, facecolor="white")
    plt.close(figure)


def draw(axes: plt.Axes, volume: MetaTensor, title: str, brain: np.ndarray, window_of_t1w: bool) -> None:
    """The middle axial slice of the brain; the patient's right is on the left. White matter is at 0.8 of the window."""
    values = np.asarray(volume[0], dtype=np.float64) * brain
    top = tissue_classes(values[brain])[1][2] / 0.8 if window_of_t1w else np.percentile(values[brain], 99.5)
    turned = nib.as_closest_canonical(nib.Nifti1Image(values, np.asarray(volume.affine))).get_fdata()[::-1]
    filled = np.flatnonzero(turned.any(axis=(0, 1)))
    axes.imshow(np.rot90(turned[:, :, int(np.quantile(filled, 0.55))]), cmap="gray", vmin=0, vmax=top)
    axes.set(title=title, xticks=[], yticks=[])


if __name__ == "__main__":
    table = write_likeness(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {"shipped": {}})
    print(table.round(3).to_string(index=False))
    print(table.groupby(["row", "modality"]).mean(numeric_only=True).round(3).to_string())
