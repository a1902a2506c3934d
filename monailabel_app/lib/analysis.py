"""The bundle's inference, kept warm: one analysis a scan, from which every model of a family answers."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import SaveImage
from scripts.evaluation import LesionMask
from scripts.methods import Guest, Method
from scripts.similarity import to_scale_of
from scripts.symmetry import Mirror
from scripts.volumes import on_grid, voxel_ml

from .weights import WeightStore

__all__ = ["Analyst", "write_volume"]

# A folder of their own: a client on this machine saves a result under its name in the common one, and the server then removes its.
RESULTS = tempfile.TemporaryDirectory(prefix="una_results_")
REMEMBERED = 6  # analyses; one of a 1 mm scan takes about 60 MB


def write_volume(volume: MetaTensor, extension: str, dtype: Any) -> str:
    """Write ``(1, X, Y, Z)`` on its own grid to a temporary file, which the caller removes.

    Args:
        volume: with the affine of the scan.
        extension: ``.nii.gz``, ``.nii`` or ``.nrrd``.
        dtype: of the voxels in the file.
    """
    handle, name = tempfile.mkstemp(prefix="una_", suffix=extension, dir=RESULTS.name)
    os.close(handle)
    with tempfile.TemporaryDirectory(prefix="una_") as folder:
        save = SaveImage(
            output_dir=folder,
            output_ext=extension,
            output_dtype=dtype,
            resample=False,
            separate_folder=False,
            print_log=False,
        )
        save(volume)
        shutil.move(next(Path(folder).iterdir()), name)
    return name


class Analyst:
    """Analyse scans by the configs of a family.

    Args:
        config: of the family, see ``variants/una.yaml``.
        bundle: folder of the bundle.
        model_dir: where published weights are kept.
    """

    def __init__(self, config: str | Path, bundle: str | Path, model_dir: str | Path) -> None:
        self.name = Path(config).stem
        self.bundle = Path(bundle)
        workflow = ConfigParser.load_config_file(str(config))["workflow"]
        self.parser = ConfigParser()
        self.parser.read_config([*(str(self.bundle / "configs" / name) for name in workflow), str(config)])
        self.weights = WeightStore(Path(model_dir) / self.name, self["guest"]["checkpoint"])
        self._lock = threading.Lock()
        self._method: tuple[tuple, Method] | None = None
        self._analyses: OrderedDict[tuple, dict[str, Any]] = OrderedDict()

    def __getitem__(self, key: str) -> Any:
        """A value of the configs."""
        return self.parser.get_parsed_content(key)

    @property
    def draws_healthy(self) -> bool:
        """Whether one of its models answers with the healthy brain."""
        return "healthy" in self["models"]

    def method(self) -> Method:
        """The method with the weights in use; they are read again when they changed."""
        path = self.weights.current()
        stamp = (str(path), path.stat().st_mtime_ns)
        if self._method is None or self._method[0] != stamp:
            self._method = (stamp, self._with_weights(path))
            self._analyses.clear()
        return self._method[1]

    def _with_weights(self, path: Path) -> Method:
        return Guest(self["method"], self["guest_settings"]).with_weights(path)

    def analyse(self, image: str | Path, modality: str | None = None) -> dict[str, Any]:
        """Everything at the working resolution, and the scan.

        Args:
            image: file of a scan, or a folder of one DICOM series.
            modality: one of `scripts.modalities.MODALITIES`; None to guess.

        Returns:
            ``pred_healthy`` (T1w), ``pred_intact`` (the scan without its anomaly), the scores, ``scan``, ``mirrored``, ``brain``,
            ``disagreement`` and ``modality``; and ``original``, the scan as read.

        Raises:
            InputError: when the scan cannot be used.
        """
        image = Path(image)
        with self._lock:  # one at a time: two would share the cores, and the memory doubles
            method = self.method()
            key = (str(image), image.stat().st_mtime_ns, modality)
            if key not in self._analyses:
                self._analyses[key] = self._analysed(image, modality, method)
                while len(self._analyses) > REMEMBERED:
                    self._analyses.popitem(last=False)
            self._analyses.move_to_end(key)
            return self._analyses[key]

    def _analysed(self, image: Path, modality: str | None, method: Method) -> dict[str, Any]:
        source = sorted(map(str, image.iterdir())) if image.is_dir() else str(image)
        data = self["preparation"]({"image": source, "modality": modality})
        with torch.no_grad():
            found = method(data)
            from_there = method.picture({**data, "scan": data["mirrored"], "mirrored": data["scan"]})
        seen_from_there = Mirror()(from_there, data["mirror_transform"])
        here = found.get("pred_healthy", found["score"])
        data["disagreement"] = (here - seen_from_there).abs() * data["brain"]
        return self["maps"]({**data, **found})

    def found_ml(self, image: Path, modality: str | None, weights: Path) -> float:
        """Volume of the lesions that other weights than those in use find in a scan, ml."""
        lesion = self.lesion(self._analysed(image, modality, self._with_weights(weights)), self["scores"][0])
        return float(lesion.sum()) * voxel_ml(lesion)

    def on_scan(self, analysis: Mapping[str, Any], key: str) -> MetaTensor:
        """A map of an analysis on the grid of the scan."""
        return on_grid(analysis[key], analysis["original"])

    def healthy(self, analysis: Mapping[str, Any]) -> MetaTensor:
        """The healthy T1w on the grid of the scan; for a T1w also on its intensities, so that both look alike in one window."""
        fine = self["fine"](analysis)
        pred, brain = (self.on_scan(fine, key).clamp(min=0.0) for key in ("pred_healthy", "brain"))
        return to_scale_of(pred, analysis["original"], brain) if analysis["modality"] == "t1" else pred

    def lesion(self, analysis: Mapping[str, Any], key: str, **settings: float) -> MetaTensor:
        """The mask of a score on the grid of the scan, cut as ``run inferring`` cuts it.

        Args:
            analysis: of the scan.
            key: of the score.
            settings: of `LesionMask`, where they differ from the configs.
        """
        return LesionMask(**{**self.settings(), **settings})(analysis[key], analysis["original"])

    def settings(self) -> dict[str, float]:
        """Threshold and smallest lesion of the configs."""
        return {key: self[key] for key in ("threshold", "min_volume_ml")}

    def figures(self, analysis: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers by which scans are ranked: volume found, mean score, and how little the two passes agree."""
        brain = analysis["brain"] > 0
        lesion = self.lesion(analysis, self["scores"][0])
        return {
            "lesion_ml": float(lesion.sum()) * voxel_ml(lesion),
            "mean_score": float(torch.as_tensor(analysis[self["scores"][0]])[brain].mean()),
            "uncertainty": float(torch.as_tensor(analysis["disagreement"])[brain].mean()),
            "modality": analysis["modality"],
            "weights": self.weights.info()["version"],
        }
