"""From readers' corrections to new weights: prepared, trained on, judged, and published only if they are not worse and leave
healthy brains alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from nilearn.datasets import load_mni152_brain_mask
from scripts.config import parse
from scripts.data import load_datalist, write_sample_subject
from scripts.errors import InputError
from scripts.saving import write_whole
from scripts.volumes import on_grid, read_volume

from .analysis import Analyst

__all__ = ["Learn"]

logger = logging.getLogger(__name__)

LESION = 1  # value of lesion voxels in a submitted label, as in the masks that the models return
HEALTHY_ML = 5.0  # that weights may find in a held-out healthy T1w, as bundle/configs/gate.yaml asks
HELD_OUT = ("PSNR_F_region", "PSNR_D_region")  # dB in the brain, and in the lesions, of simulated held-out cases


class Learn(TrainTask):
    """Fine-tune the weights in use.

    Every scan with a final label gives its traced lesion as a seed of the fluid anomaly generator, and, where it is a T1w, a real
    diseased scan that is supervised outside of its lesion (Eq. 7, d = 1). They join the stream of healthy subjects.

    Requests: ``iterations``, ``learning_rate``; ``restore``, a version to go back to instead of training; ``tolerance``, dB that
    the new weights may lose on the held-out cases. A run that was stopped, or whose server died, continues unless ``resume``
    is false.

    Args:
        analyst: of the family.
        training_data: datalist of healthy subjects; None for the bundle's sample subject.
    """

    def __init__(self, analyst: Analyst, training_data: str | None) -> None:
        super().__init__(f"Learn from the corrected scans [{analyst['description']}]")
        self.analyst = analyst
        self.training_data = training_data
        self.run_dir = analyst.weights.folder / "run"

    def config(self) -> dict[str, Any]:
        settings = self.analyst["training"]
        return {
            "iterations": settings["iterations"],
            "learning_rate": settings["learning_rate"],
            "tolerance": 0.0,
            "resume": True,
            "restore": "",
        }

    def stats(self) -> dict[str, Any]:
        def read(name: str) -> dict[str, Any] | None:
            file = self.run_dir / name
            return json.loads(file.read_text()) if file.is_file() else None

        return {**self.analyst.weights.info(), "unfinished": read("plan.json"), **(read("progress.json") or {})}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        request = {**self.config(), **request}
        store = self.analyst.weights
        if request["restore"] not in ("", None):
            store.use(int(request["restore"]))
            return store.info()
        plan_file = self.run_dir / "plan.json"
        if not plan_file.is_file() or not request["resume"]:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            self._prepare(request, datastore)
        plan = json.loads(plan_file.read_text())
        logger.info(f"training from version {plan['parent']} on {len(plan['corrections'])} corrections")
        self._train(plan)
        before = self._held_out(plan, store.path(plan["parent"]))
        after = self._held_out(plan, self.run_dir / "model.pt")
        # A plan that a version before this one wrote may lack a key, and its training must not be lost for it.
        told = {key: plan.get(key) for key in ("corrections", "tested_on_training_subjects", "settings")}
        record = {**told, "before": before, "after": after}
        worse = [key for key in HELD_OUT if after[key] < before[key] - float(request["tolerance"])]
        reasons = [f"worse on held-out cases: {', '.join(worse)}"] if worse else []
        if after["healthy_ml"] > HEALTHY_ML:
            reasons.append(f"{after['healthy_ml']:.1f} ml found in a healthy brain, at most {HEALTHY_ML:g} are allowed")
        if reasons:
            record["refused"] = "; ".join(reasons)
            (store.folder / "refused.json").write_text(json.dumps(record, indent=1))
        else:
            record["version"] = store.publish(self.run_dir / "model.pt", record)
        shutil.rmtree(self.run_dir)
        logger.info(json.dumps(record))
        return record

    def _train(self, plan: Mapping[str, Any]) -> None:
        """Train, tell how far it is, and end with the server, which is the parent of this process: left alone, a training would
        publish weights behind the back of the next server."""
        trainer, server = self._parser(plan).get_parsed_content("train::trainer"), os.getppid()

        def progress(engine: Engine) -> None:
            done = {"epoch": engine.state.epoch, "total_epochs": engine.state.max_epochs}
            write_whole(self.run_dir / "progress.json", json.dumps(done))

        def end_with_server() -> None:
            if os.getppid() != server:
                logger.warning(
                    "the server is gone: training stops, and goes on from its last epoch when it is asked to"
                )
                os._exit(1)

        trainer.add_event_handler(Events.EPOCH_COMPLETED, progress)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, end_with_server)
        trainer.run()

    def _prepare(self, request: Mapping[str, Any], datastore: Datastore) -> None:
        """Write the subjects of a run; ``plan.json`` comes last, so that a run with one is whole."""
        folder = self.run_dir / "corrections"
        folder.mkdir(parents=True)
        diseased, masks = [], []
        pairs = datastore.datalist()
        for number, pair in enumerate(pairs):
            try:
                entry, mask = self._correction(pair, folder / f"{number:04d}")
            except InputError as error:
                logger.warning(f"{pair['image']} is left out: {error}")
                continue
            diseased += [entry] if entry else []
            masks += [mask] if mask else []
        base = self.training_data or write_sample_subject(self.analyst.weights.folder / "sample_subject")
        sections = {name: load_datalist(base, name) for name in ("training", "validation")}
        sections["training"] += diseased
        trained, tested = ({entry["subject"] for entry in entries} for entries in sections.values())
        seen = sorted(trained & tested)
        if seen:
            logger.warning(
                f"{', '.join(seen)}: trained on and tested on, so that the test proves little; name a datalist with other people "
                "under 'validation' (--conf training_data FILE)"
            )
        (self.run_dir / "datalist.json").write_text(json.dumps(sections))
        iterations = max(1, int(request["iterations"]))
        settings = {
            **self.analyst["training"],
            "iterations": iterations,
            "learning_rate": float(request["learning_rate"]),
        }
        settings["iterations_per_epoch"] = min(settings["iterations_per_epoch"], iterations)
        plan = {
            "parent": self.analyst.weights.info()["version"],
            "corrections": [Path(pair["image"]).name for pair in pairs],
            "traced_masks": masks,
            "tested_on_training_subjects": seen,
            "settings": settings,
        }
        write_whole(self.run_dir / "plan.json", json.dumps(plan, indent=1))

    def _correction(self, pair: Mapping[str, str], stem: Path) -> tuple[dict[str, Any] | None, str | None]:
        """A corrected scan as the bundle's training wants it: a diseased subject if it is a T1w, a seed if it has a lesion."""
        traced = read_volume(pair["label"])
        if traced.any() and not (traced == LESION).any():
            raise InputError(
                f"its label has no voxel of value {LESION}, the lesion's; it has {traced.unique().tolist()[:5]}"
            )
        analysis = self.analyst.analyse(pair["image"])
        scan, brain = analysis["scan"], analysis["brain"]
        lesion = on_grid((traced == LESION).float(), scan, "nearest")
        affine = np.asarray(scan.affine)

        def saved(volume: MetaTensor, name: str, where: np.ndarray) -> str:
            path = stem.with_name(f"{stem.name}_{name}.nii.gz")
            nib.save(nib.Nifti1Image(np.asarray(volume[0], dtype=np.float32), where), path)
            return str(path.resolve())

        entry = None
        if analysis["modality"] == "t1":
            entry = {
                "subject": stem.name,
                "t1": saved(scan * (brain > 0), "t1", affine),
                "lesion": saved(lesion, "lesion", affine),
                "mirror_transform": np.asarray(analysis["mirror_transform"]).tolist(),
            }
        mask = saved(lesion, "mask", _to_template(brain) @ affine) if lesion.any() else None
        return entry, mask

    def _parser(self, plan: Mapping[str, Any], **overrides: Any) -> ConfigParser:
        parser = parse(
            ["train.yaml"],
            {
                "datalist": str(self.run_dir / "datalist.json"),
                "output_dir": str(self.run_dir),
                "traced_masks": plan["traced_masks"],
                "initial_weights": str(self.analyst.weights.path(plan["parent"])),
                "voxel_size": self.analyst["voxel_size"],
                "fold": self.analyst["guest"]["fold"],
                "features": self.analyst["guest"]["features"],
                "powers": self.analyst["guest"]["powers"],
                **plan["settings"],
                **overrides,
            },
        )
        parser.get_parsed_content("initialize")
        return parser

    def _held_out(self, plan: Mapping[str, Any], weights: Path) -> dict[str, float]:
        """Errors of weights on the held-out subjects with simulated lesions, the same draws for all weights."""
        parser = self._parser(plan, initial_weights=str(weights), output_dir=str(self.run_dir / "held_out"))
        evaluator = parser.get_parsed_content("validate::evaluator")
        evaluator.run()
        errors = {key: float(evaluator.state.metrics[key]) for key in HELD_OUT}
        return {**errors, "healthy_ml": self._healthy_ml(weights)}

    def _healthy_ml(self, weights: Path) -> float:
        """The most that weights find in a held-out healthy T1w, ml; 0 where the datalist has none."""
        scans = [
            entry["t1"]
            for entry in load_datalist(self.run_dir / "datalist.json", "validation")
            if "t1" in entry and "lesion" not in entry
        ]
        return max((self.analyst.found_ml(Path(scan), "t1", weights) for scan in scans), default=0.0)


def _to_template(brain: MetaTensor) -> np.ndarray:
    """Place a brain in template space by the boxes around both: coarse, but a seed is deformed by the fluid anyway."""
    mask = load_mni152_brain_mask(resolution=2)
    boxes = []
    for values, affine in ((np.asarray(brain[0]) > 0, np.asarray(brain.affine)), (mask.get_fdata() > 0, mask.affine)):
        points = np.argwhere(values) @ affine[:3, :3].T + affine[:3, 3]
        boxes.append((points.min(axis=0), points.max(axis=0)))
    (low, high), (template_low, template_high) = boxes
    scale = (template_high - template_low) / np.maximum(high - low, 1.0)
    placed = np.diag([*scale, 1.0])
    placed[:3, 3] = template_low - scale * low
    return placed
