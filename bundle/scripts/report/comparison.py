"""The page of a comparison of methods: it reads what `scripts.evaluation.Comparison` wrote, and nothing else."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from jinja2 import Environment
from monai.data import MetaTensor

from ..saving import write_whole
from ..volumes import on_grid
from .figures import montage_figure, top_of

__all__ = ["comparison_report"]

TEMPLATE = Path(__file__).with_name("comparison.html")
VIEWER = Path(__file__).parent / "vendor" / "niivue.umd.js"


def _embedded(figure: plt.Figure) -> str:
    """A figure as the source of an image element."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _volume(values: np.ndarray, affine: np.ndarray, top: float) -> str:
    """A volume as compressed NIfTI of 255 levels up to `top`, in base64."""
    levels = np.clip(np.asarray(values, dtype=np.float32) / max(top, 1e-6) * 255.0, 0, 255).round().astype(np.uint8)
    image = nib.Nifti1Image(levels, np.asarray(affine, dtype=np.float64))
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode()


def _beside(axes: plt.Axes) -> None:
    """The legend beside the axes, and no frame."""
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.spines[["top", "right"]].set_visible(False)


def _ranking(summary: pd.DataFrame, titles: Mapping[str, str]) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(7.5, 0.33 * len(summary) + 1.0))
    shown = summary[::-1].astype(dict.fromkeys(("auprc", "auprc_low", "auprc_high"), float))
    error = np.abs(np.stack([shown["auprc"] - shown["auprc_low"], shown["auprc_high"] - shown["auprc"]]))
    axes.barh(
        [titles[name] for name in shown["method"]],
        shown["auprc"],
        xerr=np.nan_to_num(error),
        color="#4a6fa5",
        ecolor="0.35",
    )
    axes.set_xlabel("average precision per scan, mean and 95 % interval")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curves(methods: Mapping[str, Any], order: Sequence[str], titles: Mapping[str, str]) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(7.5, 4.6))
    for number, name in enumerate(order):
        curve = np.array(methods[name]["curve"])
        if len(curve):
            axes.plot(*curve.T, label=titles[name], color=plt.cm.tab20(number % 20), linewidth=1.4)
    axes.set(
        xlabel="recall",
        ylabel="precision",
        title="all voxels of all diseased and healthy test scans",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    _beside(axes)
    return figure


def _sizes(cases: pd.DataFrame, order: Sequence[str], titles: Mapping[str, str], primary: str) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    sick = cases[cases["diseased"].astype(bool)]
    for number, name in enumerate(order if len(sick) else ()):
        own = sick[sick["method"] == name].sort_values("true_ml")
        axes.plot(
            own["true_ml"],
            own[f"dice_{primary}"],
            "o-",
            markersize=3,
            linewidth=0.7,
            color=plt.cm.tab20(number % 20),
            label=titles[name],
        )
    axes.set(
        xscale="log",
        xlabel="true volume, ml",
        ylabel=f"Dice at the threshold '{primary.replace('_', ' ')}'",
        ylim=(0, 1),
    )
    _beside(axes)
    return figure


def comparison_report(output_dir: str | Path, test: Iterable[Mapping[str, Any]], viewed: int) -> Path:
    """Write ``report.html``, one file that needs no other and no network.

    Args:
        output_dir: of the comparison.
        test: prepared test scans.
        viewed: number of diseased scans that are embedded as volumes, for a look in three planes.

    Returns:
        path of the page.
    """
    output_dir = Path(output_dir)
    content = json.loads((output_dir / "comparison.json").read_text())
    tables = {name: pd.DataFrame(content[name]) for name in ("cases", "summary", "strata", "tests")}
    summary, primary = tables["summary"], content["primary"]
    order = list(summary["method"])
    titles = {name: content["methods"][name]["about"]["title"] or name for name in order}
    montages, volumes = [], []
    for case in test:
        known = np.load(next((output_dir / "cases").glob(f"{case['subject']}_*.npz")))
        if not known["truth"].any():
            continue
        grid = MetaTensor(known["truth"][None].astype(np.float32), affine=known["affine"])
        truth = np.asarray(on_grid(grid, case["scan"])[0])
        maps = {
            kind: {
                name: nib.load(file).get_fdata(dtype=np.float32)
                for name in order
                if (file := output_dir / "scores" / name / f"{case['subject']}_{kind}.nii.gz").is_file()
            }
            for kind in ("score", "healthy")
        }
        scan, affine = np.asarray(case["scan"][0]), np.asarray(case["scan"].affine)
        ml = float(known["truth"].sum() * abs(np.linalg.det(known["affine"][:3, :3])) / 1000.0)
        about = f"{case['subject']}, {case['modality']}, {ml:.1f} ml"
        figure = montage_figure(scan, truth, {titles[name]: values for name, values in maps["score"].items()}, affine)
        montages.append((about, _embedded(figure)))
        if len(volumes) < viewed:
            shown = {"scan": _volume(scan, affine, 1.0), "truth": _volume(truth, affine, 1.0)}
            for name, values in maps["score"].items():
                shown[f"score of {titles[name]}"] = _volume(values, affine, top_of(values))
            for name, values in maps["healthy"].items():
                shown[f"healthy by {titles[name]}"] = _volume(values, affine, 1.0)
            volumes.append({"name": about, "maps": shown})
    page = (
        Environment(autoescape=True)
        .from_string(TEMPLATE.read_text())
        .render(
            content=content,
            summary=json.loads(summary.to_json(orient="records")),
            strata=content["strata"],
            tests=[row for row in content["tests"] if order[0] in (row["one"], row["other"])],
            titles=titles,
            primary=primary,
            best=order[0],
            figures={
                "ranking": _embedded(_ranking(summary, titles)),
                "curves": _embedded(_curves(content["methods"], order, titles)),
                "sizes": _embedded(_sizes(tables["cases"], order, titles, primary)),
            },
            montages=montages,
            volumes=json.dumps(volumes).replace("</", "<\\/"),
            viewer=VIEWER.read_text().replace("</script", "<\\/script"),
        )
    )
    write_whole(output_dir / "report.html", page)
    print(f"the page of the comparison: {output_dir / 'report.html'}", flush=True)
    return output_dir / "report.html"
