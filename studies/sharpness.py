"""How sharp what UNA draws is, on the working grid or blended on the scan's: ``PYTHONPATH=bundle python -m studies.sharpness D``.

Of three patients whose T1w lies on the grid of their other scans, and of Colin27, ``D/sharpness.csv`` has for every scan:

- ``intact``: PSNR (dB) of the intact scan against the scan itself outside of the lesion, in units of the scan's 99th percentile;
- ``healthy``: PSNR and SSIM of the healthy T1w against the patient's real T1w outside of the lesion, brought to its scale by a
  straight line;
- ``gradient``: mean size of the gradient of the healthy T1w there, as a share of that of the real T1w.

``sharpness.png`` shows a scan a modality: the scan, the healthy T1w and the intact scan, before and after.
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
from scipy.ndimage import binary_dilation, binary_erosion
from scripts.config import from_config
from scripts.methods import Guest
from scripts.residual import FineBlendd
from scripts.similarity import ssim_map
from scripts.volumes import on_grid, read_volume
from tqdm import tqdm

from . import SHARED
from .frontier import LESIONS, MODALITY

PREDICTIONS = ("pred_healthy", "pred_intact")


def cases() -> list[dict]:
    """Scans with the T1w of the same person, and the lesion, on one grid."""
    found = []
    for subject, (image, lesion) in LESIONS.items():
        person, modality = subject.split("_")
        if f"{person}_T1w" in LESIONS:
            found.append({"subject": subject, "image": image, "lesion": lesion, "t1": LESIONS[f"{person}_T1w"][0]})
            found[-1]["modality"] = MODALITY[modality]
    colin = SHARED / "templates/colin27_t1_1mm.nii.gz"
    return [*found, {"subject": "colin27_T1w", "image": colin, "lesion": None, "t1": colin, "modality": "t1"}]


def line_fit(image: np.ndarray, reference: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The image, brought to the scale of a reference by the best straight line."""
    slope, shift = np.polyfit(image[where], reference[where], 1)
    return slope * image + shift


def psnr(error: np.ndarray, peak: float) -> float:
    return float(20 * np.log10(peak / np.sqrt((error**2).mean())))


def fidelity(image: MetaTensor, truth: MetaTensor, where: np.ndarray) -> tuple[float, float]:
    """PSNR (dB, of the truth's 99th percentile) and SSIM of an image, brought to the scale of the truth by a straight line."""
    real = np.asarray(truth[0], dtype=np.float64)
    fitted, peak = line_fit(np.asarray(image[0], dtype=np.float64), real, where), np.percentile(real[where], 99)
    pair = [torch.from_numpy((np.where(where, v, 0.0) / peak).astype(np.float32))[None] for v in (fitted, real)]
    return psnr((fitted - real)[where], peak), float(ssim_map(*pair, window=7, sigma=1.5)[0].numpy()[where].mean())


def healthy_region(brain: MetaTensor, lesion: Path | None) -> np.ndarray:
    """Where images are compared: in the brain, away from its surface and from the lesion."""
    where = binary_erosion(np.asarray(brain[0]) > 0.5, iterations=2)
    if lesion is not None:
        where &= ~binary_dilation(np.asarray(read_volume(lesion)[0]) > 0.5, iterations=4)
    return where


def gradient(image: np.ndarray, where: np.ndarray) -> float:
    return float(np.linalg.norm(np.stack(np.gradient(image)), axis=0)[where].mean())


def measured(drawn: dict[str, MetaTensor], scan: MetaTensor, t1: MetaTensor, where: np.ndarray) -> dict[str, float]:
    """The row of a way to draw."""
    healthy, real = (np.asarray(volume[0], dtype=np.float64) for volume in (drawn[PREDICTIONS[0]], t1))
    found, similar = fidelity(drawn[PREDICTIONS[0]], t1, where)
    return {
        "intact": fidelity(drawn[PREDICTIONS[1]], scan, where)[0],
        "healthy": found,
        "ssim": similar,
        "gradient": gradient(line_fit(healthy, real, where), where) / gradient(real, where),
    }


def write_sharpness(folder: Path) -> pd.DataFrame:
    """Write ``sharpness.csv`` and ``sharpness.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare, guest, fine = (
        from_config("evaluation.yaml", "preparation", {}),
        Guest("una", {}),
        FineBlendd(PREDICTIONS),
    )
    rows, shown = [], {}
    for case in tqdm(cases()):
        data = prepare({"image": str(case["image"]), "modality": case["modality"], "subject": case["subject"]})
        data |= guest(data)
        scan = data["original"]
        t1 = on_grid(read_volume(case["t1"]), scan)
        where = healthy_region(on_grid(data["brain"], scan), case["lesion"])
        ways = {
            "working grid": {key: on_grid(data[key], scan) for key in PREDICTIONS},
            "scan's grid": {key: value for key, value in fine(data).items() if key in PREDICTIONS},
        }
        for name, drawn in ways.items():
            rows.append({"scan": case["subject"], "drawn": name, **measured(drawn, scan, t1, where)})
        shown.setdefault(case["modality"], (case["subject"], scan, ways, t1))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "sharpness.csv", index=False)
    picture(shown, folder / "sharpness.png")
    return table


def draw_section(axes: plt.Axes, volume: MetaTensor, title: str, axis: int, share: float) -> None:
    """A slice of a volume at a share of its length along an axis; the patient's right is on the left."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(volume[0]), np.asarray(volume.affine)))
    values = turned.get_fdata()
    section = np.rot90(np.take(values[::-1], int(share * values.shape[axis]), axis=axis))
    axes.imshow(section, cmap="gray", vmin=0, vmax=np.percentile(values[values > 0], 99.5))
    axes.set(title=title, xticks=[], yticks=[])


def picture(shown: dict, path: Path) -> None:
    titles = ("scan", "healthy, before", "healthy, now", "intact, before", "intact, now", "real T1w")
    figure, panels = plt.subplots(len(shown), len(titles), figsize=(3 * len(titles), 3.4 * len(shown)), squeeze=False)
    for row, (subject, scan, ways, t1) in zip(panels, shown.values()):
        before, now = ways["working grid"], ways["scan's grid"]
        volumes = (scan, before[PREDICTIONS[0]], now[PREDICTIONS[0]], before[PREDICTIONS[1]], now[PREDICTIONS[1]], t1)
        for axes, title, volume in zip(row, titles, volumes):
            draw_section(axes, volume, title, axis=2, share=0.52)
        row[0].set_ylabel(subject)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    print(write_sharpness(Path(sys.argv[1])).round(3).to_string(index=False))
