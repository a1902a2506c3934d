"""OHIF as MONAI Label 0.8.5 serves it, with what a reader needs to correct and to store a mask.

Its MONAI Label mode leaves OHIF's segmentation panel (list of segments, export to the archive) out of its layout, and brush and
eraser out of its toolbar, although it sets both tools up; and the export does not know the archive, and turns masks upside down.
The files concerned are served with that mended; nothing is written to the installed package.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

__all__ = ["install"]

logger = logging.getLogger(__name__)

RADIUS = {"min": 1, "max": 20, "step": 0.5, "value": 4}  # mm


def _button(label: str, icon: str, tools: Mapping[str, str]) -> dict[str, Any]:
    """A button of OHIF's segmentation toolbox: one tool in two shapes, with a radius."""
    size = {"commandName": "setBrushSize", "commandOptions": {"toolNames": list(tools)}}
    shapes = [{"value": tool, "label": shape} for tool, shape in tools.items()]
    return {
        "id": label,
        "icon": icon,
        "label": label,
        "evaluate": {"name": "evaluate.cornerstone.segmentation", "toolNames": list(tools)},
        "options": [
            {"id": f"{label}-radius", "name": "Radius (mm)", "type": "range", **RADIUS, "commands": size},
            {
                "id": f"{label}-shape",
                "name": "Shape",
                "type": "radio",
                "value": shapes[0]["value"],
                "values": shapes,
                "commands": "setToolActiveToolbar",
            },
        ],
    }


PAINTING = {
    "id": "BrushTools",
    "uiType": "ohif.buttonGroup",
    "props": {
        "groupId": "BrushTools",
        "items": [
            _button("Brush", "icon-tool-brush", {"CircularBrush": "Circle", "SphereBrush": "Sphere"}),
            _button("Eraser", "icon-tool-eraser", {"CircularEraser": "Circle", "SphereEraser": "Sphere"}),
        ],
    },
}
TOOLBOX = (
    "'MPR', 'Crosshairs', 'MoreTools']);\n      toolbarService.createButtonSection('segmentationToolbox', ['BrushTools'"
)
IMAGES = "const segImages = imageIds.map(imageId => esm.cache.getImage(imageId));"
DEPTH = """const depth = image => {
        const plane = esm.metaData.get('imagePlaneModule', image.referencedImageId);
        const { imagePositionPatient: p, rowCosines: r, columnCosines: c } = plane;
        return p[0] * (r[1] * c[2] - r[2] * c[1]) + p[1] * (r[2] * c[0] - r[0] * c[2]) + p[2] * (r[0] * c[1] - r[1] * c[0]);
      };
      """
MENDED = {  # what is served instead of what
    "rightPanels: [monailabel.monaiLabel]": "rightPanels: [monailabel.monaiLabel, cornerstone.panelTool]",
    "// toolbarService.addButtons(segmentationButtons);": f"toolbarService.addButtons([{json.dumps(PAINTING)}]);",
    # "Shapes" has no button, and the panel fails on it; the same line stands in OHIF's own mode, which has one.
    TOOLBOX + ", 'Shapes']": TOOLBOX + "]",
    # Two commands have the name storeSegmentation; this mode reaches the one that expects to be told the archive.
    "dataSource\n    }) => {\n      const promptResult": (
        "dataSource = extensionManager.getActiveDataSource()[0]\n    }) => {\n      const promptResult"
    ),
    # dcmjs numbers the frames of a segmentation from the far end of the series, whatever the order in which they are given.
    IMAGES: f"{DEPTH}{IMAGES.removesuffix(';')}.sort((a, b) => depth(b) - depth(a));",
}


def install(server: FastAPI) -> None:
    """Serve the mended files before MONAI Label's own route answers.

    Args:
        server: ``monailabel.app.app``.
    """
    missing = set(MENDED)
    for file in files("monailabel.endpoints").joinpath("static", "ohif").iterdir():
        text = file.read_text(encoding="utf-8") if file.name.endswith(".js") else ""
        found = [shipped for shipped in MENDED if shipped in text]
        if not found:
            continue
        missing -= set(found)
        for shipped in found:
            text = text.replace(shipped, MENDED[shipped])
        answer = Response(text, media_type="text/javascript")
        server.add_api_route(f"/ohif/{file.name}", lambda answer=answer: answer, include_in_schema=False)
        server.router.routes.insert(0, server.router.routes.pop())
    if missing:
        logger.warning(
            f"this MONAI Label has another OHIF; masks may not be storable there. Not found: {sorted(missing)}"
        )
