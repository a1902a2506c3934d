"""Pictures of anomalies, samples and findings, in the radiological convention (the patient's right is on the left)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation
from monai.utils import convert_to_tensor

from ..fluid import LESION_THRESHOLD
from ..saving import whole_file

__all__ = [
    "PLANES",
    "centre_of",
    "contour",
    "detection_figure",
    "film_strip",
    "finding_figure",
    "frontier_figure",
    "loss_figure",
    "montage_figure",
    "sample_figure",
    "save_figure",
    "section_of",
    "show",
    "top_of",
]

PLANES = ("sagittal", "coronal", "axial")


def section_of(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A slice of an RAS volume as rows from top to bottom: superior or anterior up, the patient's right on the left."""
    section = np.take(volume, index, axis=axis).T[::-1]
    return section if axis == 0 else section[:, ::-1]


def show(
    axes: Axes, volume: np.ndarray, axis: int, index: int, spacing: Sequence[float] = (1.0, 1.0, 1.0), **style
) -> None:
    """Draw a slice of an RAS volume ``(X, Y, Z)``, see `section_of`; voxels of `spacing` mm."""
    axes.imshow(section_of(volume, axis, index), cmap=style.pop("cmap", "gray"), interpolation="bilinear", **style)
    across, up = (size for i, size in enumerate(spacing) if i != axis)
    axes.set(xticks=[], yticks=[], aspect=up / across)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if axis > 0:
        for x, side in ((0.02, "R"), (0.98, "L")):
            axes.text(
                x, 0.02, side, color="0.7", fontsize=7, ha="left" if x < 0.5 else "right", transform=axes.transAxes
            )


def contour(
    axes: Axes, mask: np.ndarray, axis: int, index: int, color: str, style: str = "solid", width: float = 1.0
) -> None:
    """Draw the border of a mask on a slice, see `show`."""
    section = section_of(mask.astype(float), axis, index)
    if section.any() and not section.all():
        axes.contour(section, levels=[0.5], colors=color, linewidths=width, linestyles=style)


def centre_of(mask: np.ndarray) -> list[int]:
    """The voxel at which three slices show most of a mask; the middle of the volume for an empty one."""
    if not mask.any():
        return [n // 2 for n in mask.shape]
    return [int(mask.sum(axis=tuple(i for i in range(3) if i != axis)).argmax()) for axis in range(3)]


def save_figure(figure: plt.Figure, path: str | Path) -> Path:
    """Write a figure as a PNG, see `whole_file`, and close it."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150, facecolor="white", bbox_inches="tight")
    plt.close(figure)
    return Path(path)


def frontier_figure(
    curves: pd.DataFrame, summary: pd.DataFrame, promise: Mapping[str, float], path: str | Path
) -> Path:
    """Dice of lesions against the share of healthy people who are left alone, a panel a modality, a line a score.

    Args:
        curves: points of the lines, with ``row``, ``modality``, ``within`` and ``dice``.
        summary: with ``row``, ``modality``, ``within`` and ``dice``: where the limit that half of the people set has led.
        promise: ``largest_ml`` and ``share``, of the axis and of the line at the promise.
        path: of the PNG.
    """
    modalities = list(dict.fromkeys(curves["modality"]))
    figure, panels = plt.subplots(1, len(modalities), figsize=(5.2 * len(modalities), 4.2), squeeze=False)
    for axes, modality in zip(panels[0], modalities):
        for number, (name, line) in enumerate(curves[curves["modality"] == modality].groupby("row", sort=False)):
            color = f"C{number}"
            axes.plot(line["within"], line["dice"], color=color, label=name, linewidth=1.5)
            at = summary[(summary["row"] == name) & (summary["modality"] == modality)]
            if "within" in at and at["within"].notna().all():
                axes.plot(at["within"], at["dice"], "o", color=color)
        axes.axvline(promise["share"], color="0.6", linestyle=":", linewidth=1.0)
        axes.set(
            title=modality,
            xlabel=f"share of healthy people with at most {promise['largest_ml']:g} ml",
            ylabel="mean Dice of the lesions",
            xlim=(0.0, 1.01),
            ylim=(0.0, None),
        )
        axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


def film_strip(trajectories: Sequence[np.ndarray], image: np.ndarray, titles: Sequence[str], path: str | Path) -> Path:
    """Rows of fluid anomalies over an axial slice of an image: time courses, or the fates of one seed.

    Args:
        trajectories: each ``(len(titles), X, Y, Z)``, probabilities.
        image: ``(X, Y, Z)``, RAS.
        titles: of the frames.
        path: PNG to write.
    """
    figure, rows = plt.subplots(
        len(trajectories), len(titles), figsize=(1.7 * len(titles), 2.2 * len(trajectories)), squeeze=False
    )
    for row, frames in zip(rows, trajectories):
        index = centre_of(frames.max(axis=0) > LESION_THRESHOLD)[2]
        for axes, frame, title in zip(row, frames, titles):
            show(axes, image, 2, index, vmin=0.0, vmax=1.0)
            section = section_of(frame, 2, index)
            axes.imshow(np.ma.masked_less(section, 0.02), cmap="inferno", vmin=0.0, vmax=1.0, alpha=0.85)
            contour(axes, frame > LESION_THRESHOLD, 2, index, "cyan")
            axes.set_title(title, fontsize=8)
    figure.suptitle(f"Fluid anomaly: probability in colour, lesion (P > {LESION_THRESHOLD}) outlined", fontsize=10)
    figure.tight_layout()
    return save_figure(figure, path)


def sample_figure(samples: Sequence[Mapping[str, np.ndarray]], path: str | Path) -> Path:
    """Generated training samples, a column each: scan, mirrored partner, anomaly, healthy target.

    Args:
        samples: with ``scan``, ``mirrored``, ``anomaly``, ``healthy``: ``(X, Y, Z)``, RAS; and ``title``.
        path: PNG to write.
    """
    names = {"scan": "scan", "mirrored": "mirrored scan", "anomaly": "anomaly", "healthy": "healthy target"}
    figure, rows = plt.subplots(len(names), len(samples), figsize=(1.9 * len(samples), 8.8), squeeze=False)
    for column, sample in enumerate(samples):
        index = centre_of(sample["anomaly"] > LESION_THRESHOLD)[2]
        for row, (key, name) in enumerate(names.items()):
            axes = rows[row, column]
            show(axes, sample[key], 2, index, vmin=0.0, vmax=1.0, cmap="inferno" if key == "anomaly" else "gray")
            if key != "anomaly":
                contour(
                    axes,
                    sample["anomaly"] > LESION_THRESHOLD,
                    2,
                    index,
                    "cyan",
                    "dotted" if key == "mirrored" else "solid",
                )
            if row == 0:
                axes.set_title(str(sample["title"]), fontsize=8)
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    figure.tight_layout()
    return save_figure(figure, path)


def detection_figure(
    scan: torch.Tensor,
    healthy: torch.Tensor,
    score: torch.Tensor,
    lesion: torch.Tensor,
    affine: np.ndarray | torch.Tensor,
    path: str | Path,
    truth: torch.Tensor | None = None,
    title: str = "",
) -> Path:
    """A finding in three planes through its largest extent: scan, healthy reconstruction, score, lesion contour.

    Args:
        scan, healthy, score, lesion: ``(1, X, Y, Z)`` on one grid; scan and healthy in [0, 1].
        affine: of the grid, to RAS mm.
        path: PNG to write.
        truth: the true lesion, where known; drawn in green, the found one in red.
        title: heading.
    """
    upright = Orientation("RAS", labels=None)
    turned = [
        upright(MetaTensor(convert_to_tensor(v, track_meta=False).cpu().float(), affine=torch.as_tensor(affine)))
        for v in (scan, healthy, score, lesion, lesion if truth is None else truth)
    ]
    shown = {"spacing": affine_to_spacing(turned[0].affine).tolist()}
    scan, healthy, score, lesion, true = (volume[0].numpy() for volume in turned)
    columns = (
        "scan",
        "healthy reconstruction",
        "anomaly score (1: limit of healthy)",
        "lesion found" + (" (red), true (green)" if truth is not None else ""),
    )
    figure, rows = plt.subplots(3, 4, figsize=(11, 8.4))
    centre = centre_of(true > 0 if true.any() else lesion > 0)
    for row, axis in zip(rows, (2, 1, 0)):
        index = centre[axis]
        show(row[0], scan, axis, index, **shown, vmin=0.0, vmax=1.0)
        show(row[1], healthy, axis, index, **shown, vmin=0.0, vmax=1.0)
        show(row[2], score, axis, index, **shown, vmin=0.0, vmax=2.0, cmap="inferno")
        show(row[3], scan, axis, index, **shown, vmin=0.0, vmax=1.0)
        if truth is not None:
            contour(row[3], true > 0, axis, index, "lime")
        contour(row[3], lesion > 0, axis, index, "red")
        row[0].set_ylabel(PLANES[axis], fontsize=9)
    for axes, name in zip(rows[0], columns):
        axes.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    return save_figure(figure, path)


def finding_figure(
    scan: MetaTensor, healthy: MetaTensor | None, score: MetaTensor, lesions: MetaTensor, path: Any, shown: int
) -> None:
    """What was found in a scan, a row a lesion: the scan in three planes through it, and the healthy scan and the score in one.

    Args:
        scan, healthy, score, lesions: ``(1, X, Y, Z)`` on one grid in RAS; healthy None where there is none; the number of the
            lesion in every voxel, 1 the largest, else 0. A scan without a lesion is shown through its middle.
        path: PNG to write, or an open file.
        shown: rows at most; the largest lesions come first, and all lesions are outlined.
    """
    spacing = affine_to_spacing(scan.affine).tolist()
    image, heat, numbers = (volume[0].numpy() for volume in (scan, score, lesions))
    mask, count = numbers > 0, min(shown, int(numbers.max()))
    columns = ["axial", "coronal", "sagittal", *(["healthy"] if healthy is not None else []), "score"]
    figure, rows = plt.subplots(
        max(1, count), len(columns), figsize=(2.3 * len(columns), 2.6 * max(1, count)), squeeze=False
    )
    bright = float(np.percentile(image[heat > 0], 99.5)) if (heat > 0).any() else float(image.max())
    for number, row in enumerate(rows, start=1):
        centre = centre_of(numbers == number)
        for axes, axis in zip(row, (2, 1, 0)):
            show(axes, image, axis, centre[axis], spacing, vmin=min(0.0, float(image.min())), vmax=bright)
            contour(axes, mask, axis, centre[axis], "red")
        if healthy is not None:
            show(row[3], healthy[0].numpy(), 2, centre[2], spacing, vmin=0.0, vmax=1.0)
        show(row[-1], heat, 2, centre[2], spacing, vmin=0.0, vmax=max(2.0, top_of(heat)), cmap="inferno")
        row[0].set_ylabel(f"lesion {number}" if count else "nothing found", fontsize=9)
    for axes, name in zip(rows[0], columns):
        axes.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100, facecolor="white", format="png")
    plt.close(figure)


def session_figure(
    scans: Mapping[str, MetaTensor], healthy: MetaTensor, score: MetaTensor, lesions: MetaTensor, path: Any, shown: int
) -> None:
    """What was found in a session, a row a lesion: the axial slice of every scan, of the healthy T1w and of the score.

    Args:
        scans: by title; all volumes are ``(1, X, Y, Z)`` on one grid in RAS.
        healthy, score, lesions, path, shown: see `finding_figure`.
    """
    spacing = affine_to_spacing(score.affine).tolist()
    heat, numbers, t1 = (volume[0].numpy() for volume in (score, lesions, healthy))
    mask, count = numbers > 0, min(shown, int(numbers.max()))
    titles = [*scans, "healthy T1w", "score together"]
    figure, rows = plt.subplots(
        max(1, count), len(titles), figsize=(2.3 * len(titles), 2.6 * max(1, count)), squeeze=False
    )
    for number, row in enumerate(rows, start=1):
        index = centre_of(numbers == number)[2] if count else centre_of(t1 > 0)[2]
        for axes, volume in zip(row, scans.values()):
            image = volume[0].numpy()
            bright = float(np.percentile(image[t1 > 0], 99.5)) if (t1 > 0).any() else float(image.max())
            show(axes, image, 2, index, spacing, vmin=min(0.0, float(image.min())), vmax=bright)
            contour(axes, mask, 2, index, "red")
        show(row[-2], t1, 2, index, spacing, vmin=0.0, vmax=1.0)
        show(row[-1], heat, 2, index, spacing, vmin=0.0, vmax=max(2.0, top_of(heat)), cmap="inferno")
        row[0].set_ylabel(f"lesion {number}" if count else "nothing found", fontsize=9)
    for axes, title in zip(rows[0], titles):
        axes.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100, facecolor="white", format="png")
    plt.close(figure)


def change_figure(
    scans: Sequence[MetaTensor], score: MetaTensor, parts: MetaTensor, numbers: MetaTensor, path: Any, shown: int
) -> None:
    """What changed between two visits, a row a change, the largest first: both scans, the change on the second, the difference.

    Args:
        scans: of both visits, ``(1, X, Y, Z)`` in RAS on one grid and scale.
        score: of the change, positive where it became worse.
        parts: 1 new, 2 grown, 3 shrunk, 4 gone, 0 elsewhere.
        numbers: of the connected changes, 1 the largest, 0 elsewhere.
        path: PNG to write, or an open file.
        shown: rows at most.
    """
    spacing = affine_to_spacing(score.affine).tolist()
    first, second, off, kinds, changes = (volume[0].numpy() for volume in (*scans, score, parts, numbers))
    count = min(shown, int(changes.max()))
    figure, rows = plt.subplots(max(1, count), 4, figsize=(9.2, 2.6 * max(1, count)), squeeze=False)
    bright = float(np.percentile(first[first > 0], 99.5)) if (first > 0).any() else 1.0
    for number, row in enumerate(rows, start=1):
        index = centre_of(changes == number)[2] if count else centre_of(first > 0)[2]
        for axes, image in zip(row, (first, second, second)):
            show(axes, image, 2, index, spacing, vmin=0.0, vmax=bright)
        for value, colour in zip((1, 2, 3, 4), ("red", "orange", "deepskyblue", "lime")):
            contour(row[2], kinds == value, 2, index, colour)
        show(row[3], off, 2, index, spacing, vmin=-15.0, vmax=15.0, cmap="RdBu_r")
    for axes, title in zip(rows[0], ("first", "second", "changes", "difference")):
        axes.set_title(title, fontsize=9)
    if not count:
        rows[0, 0].set_ylabel("nothing changed", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100, facecolor="white", format="png")
    plt.close(figure)


def top_of(score: np.ndarray) -> float:
    """The level at which a picture of a score is brightest: the 99.8th percentile of what is not 0."""
    return float(np.percentile(score[score > 0], 99.8)) if (score > 0).any() else 1.0


def montage_figure(
    scan: np.ndarray, truth: np.ndarray, scores: Mapping[str, np.ndarray], affine: np.ndarray, across: int = 7
) -> plt.Figure:
    """The axial slice with most of the lesion: the scan with its true contour, and the score of every method.

    Args:
        scan, truth: ``(X, Y, Z)`` in RAS, in [0, 1].
        scores: by title, same shape; each is shown up to its 99.8th percentile.
        affine: of the grid.
        across: pictures in a row.
    """
    spacing = affine_to_spacing(torch.as_tensor(affine)).tolist()
    index = centre_of(truth > 0.5)[2]
    rows = -(-(len(scores) + 1) // across)
    figure, cells = plt.subplots(rows, across, figsize=(1.75 * across, 2.2 * rows), squeeze=False)
    cells = cells.ravel()
    show(cells[0], scan, 2, index, spacing, vmin=0.0, vmax=1.0)
    contour(cells[0], truth > 0.5, 2, index, "lime")
    cells[0].set_title("scan, truth", fontsize=8)
    for axes, (title, score) in zip(cells[1:], scores.items()):
        show(axes, score, 2, index, spacing, vmin=0.0, vmax=top_of(score), cmap="inferno")
        contour(axes, truth > 0.5, 2, index, "lime")
        axes.set_title(title, fontsize=8)
    for axes in cells[len(scores) + 1 :]:
        axes.set_axis_off()
    figure.tight_layout()
    return figure


def loss_figure(loss: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]], path: str | Path) -> Path:
    """Training loss, with its running median, and the validation metric.

    Args:
        loss: (iteration, value).
        validation: (epoch, PSNR in the lesion, dB).
        path: PNG to write.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    steps, values = np.array(loss).T
    window = max(1, len(values) // 30)
    smooth = [np.median(values[max(0, i - window) : i + window + 1]) for i in range(len(values))]
    left.plot(steps, values, color="0.8", linewidth=0.7, label="each iteration")
    left.plot(steps, smooth, color="C0", label="running median")
    left.set(xlabel="iteration", ylabel="loss", yscale="log", title="training loss")
    left.legend(frameon=False, fontsize=8)
    right.plot(*np.array(validation).T, marker="o", color="C1")
    right.set(xlabel="epoch", ylabel="PSNR in the lesion, dB", title="validation")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return save_figure(figure, path)
