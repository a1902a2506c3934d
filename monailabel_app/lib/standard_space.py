"""A study in MNI space, as a download: ``GET /mni/IMAGE``."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, HTTPException
from monailabel.interfaces.app import MONAILabelApp
from scripts.errors import input_error
from scripts.modalities import modality_of
from scripts.standard_space import Normalization
from scripts.volumes import on_grid, read_volume
from starlette.responses import Response

from .analysis import Analyst
from .guard import known_image
from .learning import LESION

__all__ = ["install"]


def _archive(analyst: Analyst, image: str, uri: str, label: str | None, modality: str | None) -> bytes:
    """A zip with what `Normalization` writes of a scan."""
    analysis = analyst.analyse(uri, modality)
    scan = analysis["original"]
    case = {
        **analysis,
        "original": scan.clone(),
        "lesion": analyst.lesion(analysis, analyst["scores"][0]),
        "pred_healthy": analyst.healthy(analysis),
        "pred_intact": on_grid(analysis["pred_intact"], scan),
        "subject": image,
    }
    case["original"].meta["filename_or_obj"] = image
    entry = {"image": uri, "output_name": image, "subject": image, "content": uri}
    if label and read_volume(label).any():
        entry |= {"lesion": label, "label_value": LESION}
    elif label:  # the reader says that there is none
        entry["diseased"] = False
    with tempfile.TemporaryDirectory(prefix="una_mni_") as folder:
        normalization = Normalization(
            [entry],
            folder,
            data_root_dir="",
            template=analyst["template"],
            atlas=analyst["atlas"],
            image_keys=(analyst["registered"], "scan"),
            settings=analyst.weights.info(),
            registration={key: analyst[key] for key in ("engine", "grid_spacing", "bending")},
        )
        normalization.ledger(normalization(analyst["fill"](normalization.own_lesion(case))))
        normalization.finish()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(folder).iterdir()):
                archive.write(file, f"{image}/{file.name}")
        return packed.getvalue()


def install(server: FastAPI, app: MONAILabelApp) -> None:
    """Serve ``/mni/IMAGE?modality=M``: scan, healthy T1w and lesion in MNI space, the transforms, and the load of each region.

    The lesion is the reader's final label, where there is one, else what is found.

    Args:
        server: ``monailabel.app.app``.
        app: the app it serves.
    """

    def in_mni(image: str, modality: str | None = None) -> Response:
        uri = known_image(app, image)
        analyst = next((analyst for analyst in app.analysts if analyst.draws_healthy), None)
        if analyst is None:
            raise HTTPException(404, "no family of models here draws a healthy brain")
        try:
            finals = {str(Path(entry["image"]).resolve()): entry["label"] for entry in app.datastore().datalist()}
            label = finals.get(str(Path(uri).resolve()))
            content = _archive(analyst, image, uri, label, None if modality is None else modality_of(modality))
        except Exception as error:
            if reason := input_error(error):
                raise HTTPException(422, str(reason)) from None
            raise
        known = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(image)}_mni.zip"}
        return Response(content, media_type="application/zip", headers=known)

    server.add_api_route("/mni/{image}", in_mni, methods=["GET"], include_in_schema=False)
    server.router.routes.insert(0, server.router.routes.pop())
