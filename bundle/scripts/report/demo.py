"""The page of the demonstration: what was generated, learned and found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import nibabel as nib
import numpy as np
import torch
from monai.metrics import DiceHelper
from monai.utils import convert_to_tensor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..appearance import ScaleToUnit
from ..errors import InputError
from ..evaluation import psnr_in_lesion
from ..fluid import LESION_THRESHOLD, RandFluidAnomaly
from ..saving import write_whole
from .figures import detection_figure, film_strip, loss_figure, sample_figure

__all__ = ["demo_report"]


def _volume(tensor: torch.Tensor) -> np.ndarray:
    return convert_to_tensor(tensor, track_meta=False)[0].cpu().numpy()


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path} is missing; run the commands of `make demo` before the report")
    return nib.load(path).get_fdata(dtype=np.float32)


def _scalars(output_dir: Path, tag: str) -> list[tuple[int, float]]:
    """A TensorBoard series; where a resumed run wrote a step again, the later value."""
    events = EventAccumulator(str(output_dir), size_guidance={"scalars": 0}).Reload()
    if tag not in events.Tags()["scalars"]:
        raise InputError(f"{output_dir} has no TensorBoard series '{tag}'; train there first (run training)")
    return sorted({event.step: event.value for event in events.Scalars(tag)}.items())


def _found(case: Path, analysed: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Images and figures of an analysed case whose truth is known: ``<case>/<case>_*``, ``<analysed>/<case>_image_*``."""
    images = {
        key: _read(case / f"{case.name}_{key}.nii.gz") for key in ("image", "mirrored", "healthy", "anomaly", "label")
    }
    result = {key: _read(analysed / f"{case.name}_image_{key}.nii.gz") for key in ("healthy", "anomaly", "lesion")}
    truth = images["anomaly"] > LESION_THRESHOLD
    brain = torch.from_numpy(images["label"] > 0)[None]
    lesion = torch.from_numpy(truth)[None]

    def filling(candidate: np.ndarray) -> float:
        return psnr_in_lesion(
            torch.from_numpy(candidate)[None], torch.from_numpy(images["healthy"])[None], brain, lesion
        )

    found = torch.from_numpy(result["lesion"] > 0)[None, None]
    dice, _ = DiceHelper(include_background=False, num_classes=2)(found.float(), lesion[None].float())
    report = json.loads((analysed / f"{case.name}_image_report.json").read_text())
    numbers = {
        "case": case.name,
        "true_volume_ml": float(truth.sum() / 1000.0),
        "found_volume_ml": report["lesion_volume_ml"],
        "dice": float(dice),
        "psnr_in_lesion_db": {
            "reconstruction": filling(result["healthy"]),
            "copying the scan": filling(images["image"]),
            "copying the mirrored scan": filling(images["mirrored"]),
        },
        "settings": report["settings"],
        "versions": report["versions"],
    }
    pictures = {"scan": _volume(ScaleToUnit()(torch.from_numpy(images["image"])[None])), "truth": truth, **result}
    return pictures, numbers


def _time_course(subject: Mapping[str, torch.Tensor], fluid: RandFluidAnomaly, path: Path) -> None:
    """Three seeds, carried by the fluid."""
    brain = (subject["label"] > 0).float()
    trajectories = []
    times = [i * fluid.time_step for i in range(0, fluid.num_times[1], 3)]
    for seed in range(3):
        fluid.set_random_state(seed)
        fluid.randomize()
        trajectories.append(fluid.trajectory(brain, times).cpu().numpy())
    film_strip(trajectories, _volume(subject["t1"]), [f"t = {t:.1f}" for t in times], path)


def _one_to_ten(
    subject: Mapping[str, torch.Tensor], fluid: RandFluidAnomaly, fates: RandFluidAnomaly, output_dir: Path
) -> None:
    """One mask, which `fates` reads from the file written here, and what became of it in ten draws."""
    brain = (subject["label"] > 0).float()
    fluid.set_random_state(22)  # a compact seed inside one hemisphere
    fluid.randomize()
    seed = (fluid.trajectory(brain, [0.0]) > fluid.lesion_threshold).float()
    one_mask = nib.Nifti1Image(seed[0].cpu().numpy(), brain.affine.numpy())
    nib.save(one_mask, output_dir / "one_mask.nii.gz")
    ten = [fates.set_random_state(number)(brain)[0].cpu().numpy() for number in range(10)]
    rows = [np.stack([seed[0].cpu().numpy(), *ten[first : first + 5]]) for first in (0, 5)]
    film_strip(rows, _volume(subject["t1"]), ["one mask", *["became"] * 5], output_dir / "one_to_ten.png")


def _samples(samples: Sequence[Mapping[str, Any]], path: Path) -> None:
    """What the network learns from."""
    shown = []
    for sample in samples:
        shown.append({key: _volume(sample[key]) for key in ("scan", "mirrored", "anomaly", "healthy")})
        shown[-1]["title"] = "label map, random modality" if sample["kind"] == "synthetic" else "real T1w"
    sample_figure(shown, path)


def demo_report(
    output_dir: str | Path,
    subject: Mapping[str, torch.Tensor],
    fluid: RandFluidAnomaly,
    fates: RandFluidAnomaly,
    samples: Sequence[Mapping[str, Any]],
    columns: int = 6,
) -> Path:
    """Write ``report.html``, ``report.json`` and PNGs of a demonstration.

    Args:
        output_dir: folder of the demonstration: TensorBoard events and ``errors.json`` in it, generated cases in
            ``cohort``, their analysis in ``found``. The case whose lesion changes the scan most is pictured.
        subject: prepared subject with ``t1`` and ``label``, for the time course.
        fluid: generator of the time course.
        fates: the same with one traced mask, ``one_mask.nii.gz`` of `output_dir`, which is written here.
        samples: draws to show, with ``kind``, ``scan``, ``mirrored``, ``anomaly``, ``healthy``.
        columns: how many.

    Returns:
        path of the page.

    Raises:
        InputError: when one of the demonstration's runs is missing.
    """
    output_dir = Path(output_dir)
    cases = [_found(case, output_dir / "found") for case in sorted((output_dir / "cohort").glob("case_*"))]
    if not cases:
        raise InputError(f"{output_dir / 'cohort'} has no case; run the commands of `make demo` before the report")
    pictures, finding = min(cases, key=lambda case: case[1]["psnr_in_lesion_db"]["copying the scan"])
    errors = json.loads((output_dir / "errors.json").read_text())
    loss = _scalars(output_dir, "train_loss")
    validation = _scalars(output_dir, "PSNR_D_region")

    _time_course(subject, fluid, output_dir / "fluid.png")
    _one_to_ten(subject, fluid, fates, output_dir)
    _samples([samples[draw] for draw in range(columns)], output_dir / "samples.png")
    loss_figure(loss, validation, output_dir / "loss.png")
    volumes = {key: torch.as_tensor(values)[None] for key, values in pictures.items()}
    detection_figure(
        *(volumes[key] for key in ("scan", "healthy", "anomaly", "lesion")),
        subject["t1"].affine,
        output_dir / "found.png",
        truth=volumes["truth"],
        title="A simulated lesion in a T1w scan of unseen shape",
    )

    content = {
        "training": {
            "iterations": loss[-1][0],
            "last_loss": loss[-1][1],
            "validation_psnr_in_lesion_db": validation[-1][1],
        },
        "errors": {column: entry["mean"] for column, entry in errors.items()},
        "cases": max(entry["cases"] for entry in errors.values()),
        "findings": [numbers for _, numbers in cases],
        "pictured": finding["case"],
    }
    write_whole(output_dir / "report.json", json.dumps(content, indent=1))
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("demo.html")
    write_whole(output_dir / "report.html", page.render(**content))
    return output_dir / "report.html"
