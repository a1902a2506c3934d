"""The modalities that the project tells apart."""

from __future__ import annotations

from collections.abc import Container

__all__ = ["MODALITIES", "known_as"]

MODALITIES = ("t1", "t1c", "t2", "flair", "ct")  # t1c: T1w with contrast agent


def known_as(modality: str, known: Container[str]) -> str:
    """The name under which something that knows some modalities knows this one: a T1w with contrast agent is a T1w to what never
    met one."""
    return "t1" if modality == "t1c" and modality not in known else modality
