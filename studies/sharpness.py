"""How sharp the healthy T1w is, enlarged or with the detail of the scan: ``PYTHONPATH=bundle python -m studies.sharpness D``.

Of three patients whose T1w lies on the grid of their other scans, and of Colin27, ``D/sharpness.csv`` has for every scan:

- ``psnr``, ``ssim``: of the healthy T1w against the patient's real T1w outside of the lesion, brought to its scale by a straight
  line; PSNR in dB, of the real T1w's 99th percentile;
- ``gradient``: mean size of the gradient of the healthy T1w there, as a share of that of the real T1w;
- ``edges``: how much of that gradient a Gaussian of 1 mm takes away, as a share of the same of the real T1w. It tells sharp edges
  from strong contrast: a picture of half the contrast has half the gradient, and the same edges.

``D/lesions.csv`` has the PSNR in a painted lesion of eight healthy people (`studies.quality`), whose T1w is the truth there.
``sharpness.png`` shows a scan a modality: the scan, the healthy T1w before and after, and the real T1w.
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
import torch
from monai.data import MetaTensor
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from scripts.config import from_config
from scripts.methods import Guest
from scripts.residual import FineDetaild
from scripts.similarity import ssim_map
from scripts.volumes import on_grid, read_volume
from tqdm import tqdm

from . import SHARED
from .frontier import LESIONS, MODALITY
from .quality import write_quality


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


def edges(image: np.ndarray, where: np.ndarray) -> float:
    """Mean size of the gradient in units of that after a Gaussian of one voxel, beyond 1."""
    return gradient(image, where) / gradient(gaussian_filter(image, 1.0), where) - 1.0


def measured(drawn: MetaTensor, t1: MetaTensor, where: np.ndarray) -> dict[str, float]:
    """The row of a way to draw."""
    healthy, real = (np.asarray(volume[0], dtype=np.float64) for volume in (drawn, t1))
    found, similar = fidelity(drawn, t1, where)
    share = gradient(line_fit(healthy, real, where), where) / gradient(real, where)
    return {"psnr": found, "ssim": similar, "gradient": share, "edges": edges(healthy, where) / edges(real, where)}


def in_lesion(drawn: MetaTensor, t1: MetaTensor, where: np.ndarray, lesion: np.ndarray) -> float:
    """PSNR in the lesion, dB, on the scale that fits the surroundings best."""
    healthy, real = (np.asarray(volume[0], dtype=np.float64) for volume in (drawn, t1))
    return psnr((line_fit(healthy, real, where) - real)[lesion], np.percentile(real[where], 99))


def write_sharpness(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write ``sharpness.csv``, ``lesions.csv`` and ``sharpness.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare, guest = from_config("evaluation.yaml", "preparation", {}), Guest("una", {})
    detail = FineDetaild("pred_healthy")

    def both_ways(image: Path, modality: str, subject: str, lesion: Path | None) -> tuple[dict, dict, np.ndarray]:
        data = prepare({"image": str(image), "modality": modality, "subject": subject})
        data |= guest(data)
        scan = data["original"]
        ways = {"enlarged": on_grid(data["pred_healthy"], scan), "with detail": detail(data)["pred_healthy"]}
        return data, ways, healthy_region(on_grid(data["brain"], scan), lesion)

    rows, shown = [], {}
    for case in tqdm(cases()):
        data, ways, where = both_ways(case["image"], case["modality"], case["subject"], case["lesion"])
        t1 = on_grid(read_volume(case["t1"]), data["original"])
        rows += [{"scan": case["subject"], "drawn": name, **measured(drawn, t1, where)} for name, drawn in ways.items()]
        shown.setdefault(case["modality"], (case["subject"], data["original"], *ways.values(), t1))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "sharpness.csv", index=False)
    picture(shown, folder / "sharpness.png")

    quality, _ = write_quality(folder / "painted")
    painted = []
    for entry in tqdm(json.loads(quality.read_text())["test"]):
        image, mask, healthy = (quality.parent / entry[key] for key in ("image", "lesion", "healthy"))
        data, ways, where = both_ways(image, entry["modality"], entry["subject"], mask)
        t1, lesion = read_volume(healthy), np.asarray(read_volume(mask)[0]) > 0.5
        found = {name: in_lesion(drawn, t1, where, lesion) for name, drawn in ways.items()}
        painted.append(
            {"scan": entry["subject"], "scan itself": in_lesion(data["original"], t1, where, lesion), **found}
        )
    lesions = pd.DataFrame(painted)
    lesions.to_csv(folder / "lesions.csv", index=False)
    return table, lesions


def draw_section(axes: plt.Axes, volume: MetaTensor, title: str, axis: int, share: float) -> None:
    """A slice of a volume at a share of its length along an axis; the patient's right is on the left."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(volume[0]), np.asarray(volume.affine)))
    values = turned.get_fdata()
    section = np.rot90(np.take(values[::-1], int(share * values.shape[axis]), axis=axis))
    axes.imshow(section, cmap="gray", vmin=0, vmax=np.percentile(values[values > 0], 99.5))
    axes.set(title=title, xticks=[], yticks=[])


def picture(shown: dict, path: Path) -> None:
    titles = ("scan", "healthy T1w, enlarged", "healthy T1w, with detail", "real T1w")
    figure, panels = plt.subplots(len(shown), len(titles), figsize=(4 * len(titles), 4.6 * len(shown)), squeeze=False)
    for row, (subject, *volumes) in zip(panels, shown.values()):
        for axes, title, volume in zip(row, titles, volumes):
            draw_section(axes, volume, title, axis=2, share=0.52)
        row[0].set_ylabel(subject)
    figure.savefig(path, dpi=80, bbox_inches="tight", facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    table, lesions = write_sharpness(Path(sys.argv[1]))
    print(table.round(3).to_string(index=False))
    print(lesions.mean(numeric_only=True).round(2).to_string())
