"""A 1 mm T1w of slices of 5 mm: ``PYTHONPATH=bundle python -m studies.superresolution runs/superresolution``.

Scans of 1 mm of three patients, whose T1w lies on the grid of their other scans, and of Colin27 are averaged over axial slices of
5 mm. ``--result_spacing 1.0`` of `inferring` makes 1 mm of them again. ``superresolution.csv`` has for every scan and way:

- ``scan``: the interpolated slices against the 1 mm scan;
- ``T1w``: what is taken for a T1w (interpolated slices, healthy T1w) against the 1 mm T1w of the same person.

Both as PSNR (dB) and SSIM outside of the lesion, after the best straight line of intensities.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from scripts.config import from_config
from scripts.methods import Guest
from scripts.residual import FineDetaild
from scripts.volumes import FinerGridd, on_grid, read_volume
from tqdm import tqdm

from .sharpness import cases, draw_section, fidelity, healthy_region

THICKNESS = 5  # mm


def thick_slices(scan: MetaTensor) -> MetaTensor:
    """Means of axial slices of `THICKNESS` of a scan of 1 mm, whose third axis runs up or down."""
    count = scan.shape[3] // THICKNESS
    means = scan.as_tensor()[..., : count * THICKNESS].unflatten(3, (count, THICKNESS)).mean(dim=-1)
    step = np.diag([1.0, 1.0, THICKNESS, 1.0])
    step[2, 3] = (THICKNESS - 1) / 2
    return MetaTensor(means, affine=scan.affine.double() @ torch.from_numpy(step))


def write_superresolution(folder: Path) -> pd.DataFrame:
    """Write the slices, ``superresolution.csv`` and ``superresolution.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare, guest = from_config("evaluation.yaml", "preparation", {}), Guest("una", {})
    finer = FinerGridd("original", 1.0)
    fine = FineDetaild("pred_healthy")
    rows, shown = [], {}
    for case in tqdm(cases()):
        scan, t1 = read_volume(case["image"]), on_grid(read_volume(case["t1"]), read_volume(case["image"]))
        file = folder / f"{case['subject']}.nii.gz"
        slices = thick_slices(scan)
        nib.save(nib.Nifti1Image(np.asarray(slices[0]), np.asarray(slices.affine)), file)
        data = prepare({"image": str(file), "modality": case["modality"], "subject": case["subject"]})
        data |= guest(data)
        interpolated = finer(data)
        where = healthy_region(on_grid(data["brain"], scan), case["lesion"])
        healthy, cubic = fine(interpolated)["pred_healthy"], interpolated["original"]
        ways = {
            "slices, linear": slices,
            "slices, cubic": cubic,
            "healthy T1w, enlarged": data["pred_healthy"],
            "healthy T1w": healthy,
        }
        for name, image in ways.items():
            row, drawn = {"scan": case["subject"], "way": name}, on_grid(image, scan)
            for target, truth in (("scan", scan), ("T1w", t1)):
                row[f"{target} PSNR"], row[f"{target} SSIM"] = fidelity(drawn, truth, where)
            rows.append(row)
        shown.setdefault(case["modality"], (case["subject"], cubic, scan, healthy, t1))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "superresolution.csv", index=False)
    picture(shown, folder / "superresolution.png")
    return table


def picture(shown: dict, path: Path) -> None:
    titles = ("slices of 5 mm", "scan of 1 mm", "healthy T1w of the slices", "T1w of 1 mm")
    figure, panels = plt.subplots(len(shown), len(titles), figsize=(3 * len(titles), 2.6 * len(shown)), squeeze=False)
    for row, (subject, *volumes) in zip(panels, shown.values()):
        for axes, title, volume in zip(row, titles, volumes):
            draw_section(axes, on_grid(volume, volumes[1]), title, axis=1, share=0.55)
        row[0].set_ylabel(subject)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    print(write_superresolution(Path(sys.argv[1])).round(3).to_string(index=False))
