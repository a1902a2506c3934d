"""The modalities that the project tells apart."""

from __future__ import annotations

import re
from collections.abc import Container

from .errors import InputError

__all__ = ["MODALITIES", "known_as", "modality_of"]

MODALITIES = ("t1", "t1c", "t2", "flair", "ct")  # t1c: T1w with contrast agent


SPELLINGS = {"t1": r"t1(w|n)?", "t1c": r"t1w?(c|ce|gd)", "t2": r"t2w?", "flair": r"(t2)?flair|t2f", "ct": r"n?cct|ct"}


def modality_of(text: str) -> str:
    """The modality that a user's spelling means: "T2w", "FLAIR", "T1-Gd".

    Raises:
        InputError: when it means none.
    """
    word = re.sub(r"[\W_]+", "", str(text).lower())
    for modality, pattern in SPELLINGS.items():
        if re.fullmatch(pattern, word):
            return modality
    raise InputError(f"modality '{text}' is not known; use one of {', '.join(MODALITIES)}, or leave it out")


def known_as(modality: str, known: Container[str]) -> str:
    """The name under which something that knows some modalities knows this one: a T1w with contrast agent is a T1w to what never
    met one."""
    return "t1" if modality == "t1c" and modality not in known else modality
