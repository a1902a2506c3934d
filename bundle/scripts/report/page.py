"""A page from a template of this folder. It needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["written_page"]

TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"), autoescape=True)


def written_page(template: str, picture: io.BytesIO | None = None, **content: Any) -> str:
    """The text of a page.

    Args:
        template: name of the file.
        picture: a PNG, which the template shows as ``picture``.
        content: what else the template names.
    """
    if picture is not None:
        content["picture"] = base64.b64encode(picture.getvalue()).decode()
    return TEMPLATES.get_template(template).render(**content)
