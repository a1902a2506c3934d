"""OHIF as MONAI Label 0.8.5 serves it, with what a reader needs to correct and to store a mask.

Its MONAI Label mode leaves OHIF's segmentation panel (list of segments, export to the archive) out of its layout, and the brush and
the eraser out of its toolbar, although it sets both tools up: a mask could be looked at and nothing else. The file of that mode is
served with panel and buttons in it; nothing is written to the installed package.
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
MENDED = {  # what is served instead of what
    "rightPanels: [monailabel.monaiLabel]": "rightPanels: [monailabel.monaiLabel, cornerstone.panelTool]",
    "// toolbarService.addButtons(segmentationButtons);": f"toolbarService.addButtons([{json.dumps(PAINTING)}]);",
    "['BrushTools', 'Shapes']": "['BrushTools']",
}


def install(server: FastAPI) -> None:
    """Serve the mended mode before MONAI Label's own route answers.

    Args:
        server: ``monailabel.app.app``.
    """
    for file in files("monailabel.endpoints").joinpath("static", "ohif").iterdir():
        text = file.read_text(encoding="utf-8") if file.name.endswith(".js") else ""
        if not all(shipped in text for shipped in MENDED):
            continue
        for shipped, mended in MENDED.items():
            text = text.replace(shipped, mended)
        answer = Response(text, media_type="text/javascript")
        server.add_api_route(f"/ohif/{file.name}", lambda answer=answer: answer, include_in_schema=False)
        server.router.routes.insert(0, server.router.routes.pop())
        return
    logger.warning("this MONAI Label has another OHIF: there, masks can be corrected by clicks, and submitted from 3D Slicer")
