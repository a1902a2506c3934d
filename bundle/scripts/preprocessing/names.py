"""What the name of a file says: the person, the modality, and whether it is a companion of a scan. Only whole words count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["COMPANIONS", "OUTPUTS", "Named", "modality_by_words", "read_name"]

# What comes with a scan, in its world coordinates, and the ending of its file in the derivatives.
COMPANIONS = {"label": "label_dseg", "lesion": "lesion_mask"}
# Endings of the volumes that `run inferring` and `run normalizing` write beside a scan.
OUTPUTS = (
    "healthy",
    "anomaly",
    "lesion",
    "filled",
    "session_healthy",
    "session_anomaly",
    "session_lesion",
    "change",
    "mni",
    "mni_healthy",
    "mni_lesion",
    "to_mni_field",
    "from_mni_field",
)
# Words of file names, of BIDS suffixes, of challenges (t1n, t1c, t2f, t2w) and of scanners' series descriptions.
WORDS = {
    "flair": r"(2d|3d|t2w?)?flair|t2f|tirm|darkfluid",
    "ct": r"n?cct|ct",
    "t1c": r"(2d|3d)?t1(c|ce|wce|gd|post|km)",
    "t1": r"(2d|3d)?t1(w|n)?|mp2?rage|[if]?r?spgr|bravo|tfl(2d|3d)?",
    "t2": r"(2d|3d)?t2w?",
}
# Of a T1w with contrast agent: what it is called, and brands. BIDS has ce-AGENT_T1w.
AGENT_WORDS = (
    r"gd(dtpa|dota)?|gad\w*|kontrast(mittel)?|contrast|enhanced|post(gd|gad|km|contrast)|dotarem|magnevist|prohance"
    r"|omniscan|multihance|clariscan|elucirem|vueway|pixxoscan|primovist|eovist|optimark"
)
SHORT_AGENT_WORDS = r"km|ce|cem|post"  # that may mean something else, too: they count behind the word of the modality
# With one of these words there is none.
NATIVE_WORDS = (
    r"pre|pregd|precontrast|prekm|native?|nativ|without|no|non|noncontrast|nonenhanced|unenhanced|ohne|wo|none"
)
PLUS_C = r"(?i)\+\s*c(?![a-z0-9])|(?<![a-z0-9])c\s*\+|\+\s*(gd|km)(?![a-z0-9])"  # T1+C
LABEL_WORDS = r"synthseg|aseg|aparc|dseg|labels?|labelmap"
LESION_WORDS = r"lesions?|lesionmask|seg|gt"


@dataclass(frozen=True)
class Named:
    """What a name says.

    Args:
        person: the name without the words that tell the modality; empty where nothing is left.
        kind: one of `MODALITIES`, "label", "lesion", "other" for a mask that is no lesion, or None where nothing tells.
    """

    person: str
    kind: str | None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower().replace("w/o", "without")) if word]


def _agent_words(words: list[str]) -> list[str]:
    """The words that tell a contrast agent."""
    behind = next((n for n, word in enumerate(words) if re.fullmatch(WORDS["t1"], word)), len(words))
    return [
        word
        for n, word in enumerate(words)
        if re.fullmatch(AGENT_WORDS, word) or (n > behind and re.fullmatch(SHORT_AGENT_WORDS, word))
    ]


def modality_by_words(text: str) -> str | None:
    """The modality that a file name or a series description tells, or None."""
    words = _words(re.sub(PLUS_C, " contrast ", text))
    words += ["darkfluid"] if ("dark", "fluid") in pairwise(words) else []
    kind = next((kind for kind, pattern in WORDS.items() if any(re.fullmatch(pattern, word) for word in words)), None)
    agent, native = _agent_words(words), any(re.fullmatch(NATIVE_WORDS, word) for word in words)
    bids = re.search(r"(?:^|_)(?:ce-|acq-(?=post))([a-z0-9]+)(?:_|$)", text.lower())
    told = bids[1] not in ("none", "no", "pre", "native") if bids else bool(agent) and not native
    return "t1c" if kind == "t1" and told else kind


def _companion(words: list[str]) -> str | None:
    """What the last word makes of a file: a lesion study is no lesion, the lesion of a study is."""
    last = words[-1] if words else ""
    if last in ("mask", "roi"):  # BIDS writes label-L for a lesion
        lesion = any(word.endswith(("lesion", "lesions")) for word in words) or ("label", "l") in pairwise(words)
        return "lesion" if lesion else "other"
    if re.fullmatch(LABEL_WORDS, last):
        return "label"
    return "lesion" if re.fullmatch(LESION_WORDS, last) else None


def read_name(stem: str) -> Named:
    """Read a file name without its ending.

    ``anna_T1w`` and ``anna_lesion`` are of one person, ``patient1_T2w`` and ``patient2_T2w`` of two, and so are ``s1_11`` and
    ``s11_1``: what is left of a name keeps its separators.
    """
    modality = modality_by_words(stem)
    kind = _companion(_words(stem)) or modality
    bids = re.match(r"(sub-[^_\W]+(?:_ses-[^_\W]+)?)(?:_|$)", stem)
    if bids:
        return Named(bids.group(1), kind)
    told = [*WORDS.values(), "brain", "dark", "fluid"] if modality else ["brain"]
    if modality in ("t1", "t1c"):
        stem = re.sub(PLUS_C, " contrast ", stem)
        if agents := _agent_words(_words(stem)):
            told += [*map(re.escape, agents), NATIVE_WORDS, "with", "mit", "nach", "w"]
    if kind in ("label", "lesion", "other"):
        told += [LABEL_WORDS, LESION_WORDS, "mask", "roi", "consensus"]
    parts = re.split(r"([\W_]+)", stem)
    kept = ["" if re.fullmatch("|".join(told), part.lower()) else part for part in parts]
    person = re.sub(r"([\W_])[\W_]*", r"\1", "".join(kept)) if len(kept) != len(parts) or "" in kept else stem
    return Named(re.sub(r"^[\W_]+|[\W_]+$", "", person), kind)
