"""``una bids BIDS_DIR OUT participant|group``: the command line that BIDS Apps share, and derivatives by the BIDS names."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from . import __version__
from .cli import COMMANDS
from .errors import InputError, one_line_errors
from .locations import CONFIGS
from .preprocessing.names import COMPANIONS
from .preprocessing.sources import Scan, find_subjects
from .saving import write_whole
from .volumes import volume_stem

__all__ = ["arrange", "derivatives_of", "main"]

SPACE = "MNI152NLin2009cAsym"
BIDS_VERSION = "1.10.0"
WORK = ".una"  # below the output: results as `run inferring` writes them, until they have their names
# Result of a scan: what stands between the entities of the scan and the suffix, the suffix (None: that of the scan), what it is.
NAMES = {
    "healthy.nii.gz": ("desc-healthy{of}", "T1w", "T1w that the person would have without disease"),
    "filled.nii.gz": ("desc-filled", None, "the scan, its lesion filled with healthy tissue"),
    "anomaly.nii.gz": ("desc-anomaly", None, "anomaly score: 1 is the limit that 95 of 100 healthy people stay below"),
    "lesion.nii.gz": ("label-lesion_desc-{suffix}", "mask", "where the score exceeds the limit"),
    "session_healthy.nii.gz": ("desc-sessionhealthy{of}", "T1w", "healthy T1w from all scans of the session"),
    "session_anomaly.nii.gz": ("desc-sessionanomaly", None, "anomaly score of all scans of the session together"),
    "session_lesion.nii.gz": (
        "label-lesion_desc-session{suffix}",
        "mask",
        "where the score of the session exceeds its limit",
    ),
    "mni.nii.gz": (f"space-{SPACE}_desc-placed", None, "the scan in the space of the template"),
    "mni_healthy.nii.gz": (f"space-{SPACE}_desc-healthy{{of}}", "T1w", "the healthy T1w in the space of the template"),
    "mni_lesion.nii.gz": (
        f"space-{SPACE}_label-lesion_desc-{{suffix}}",
        "mask",
        "the lesion in the space of the template",
    ),
    "to_mni.h5": (f"from-{{suffix}}_to-{SPACE}_mode-image", "xfm", "resamples the scan onto the template"),
    "from_mni.h5": (f"from-{SPACE}_to-{{suffix}}_mode-image", "xfm", "resamples the template onto the scan"),
}
COLUMNS = {
    "participant_id": "The person",
    "session_id": "The session, n/a where there is one",
    "scan": "The scan that was analysed, below the raw data set",
    "modality": "t1, t1c (with contrast agent), t2, flair or ct",
    "lesions": "Number of lesions found",
    "lesion_ml": "Their volume in ml",
    "flags": "What seemed odd about the scan",
    "status": "ok, or why the scan could not be used",
}


def derivatives_of(stem: str) -> dict[str, str]:
    """Names of the results of a scan, relative to its ``anat`` folder, by what ``run inferring`` and ``run normalizing`` call them.

    Args:
        stem: BIDS name of the scan without its ending, such as ``sub-01_ses-2_FLAIR``.
    """
    *entities, suffix = stem.split("_")
    # BIDS has space before label, and label before desc; one desc of the scan would be a second one.
    kept = [entity for entity in entities if not re.match(r"(desc|label|space|from|to|mode)-", entity)]
    names = {}
    for result, (told, own, _) in NAMES.items():
        middle = told.format(of="" if suffix == "T1w" else suffix, suffix=suffix)
        names[result] = "_".join([*kept, middle, own or suffix]) + result[result.index(".") :]
    return names


def arrange(scan: Scan, raw: Path, work: Path, out: Path) -> dict[str, Any]:
    """Move the results of a scan to their BIDS names, each with a JSON beside it; a row of the table.

    Args:
        scan: of the raw data set.
        raw: root of the raw data set.
        work: where the results lie.
        out: root of the derivatives.
    """
    stem = volume_stem(scan.files[0])
    relative = scan.files[0].relative_to(raw)
    report = json.loads((work / f"{stem}_report.json").read_text(encoding="utf-8"))
    folder = out.joinpath(*relative.parts[:-1])
    folder.mkdir(parents=True, exist_ok=True)
    found = {"Lesions": report["lesions"], "LesionVolume": report["lesion_volume_ml"], "Flags": report["flags"]}
    for result, name in derivatives_of(stem).items():
        source = work / f"{stem}_{result}"
        if not source.is_file():
            continue
        shutil.move(source, folder / name)
        in_mni = result.startswith("mni")
        about = {
            "Description": NAMES[result][2],
            "Sources": [f"bids:raw:{relative.as_posix()}"],
            "SpatialReference": SPACE if in_mni else f"bids:raw:{relative.as_posix()}",
            "SkullStripped": result.startswith(("healthy", "session_healthy", "mni_healthy")),
        }
        if NAMES[result][1] == "mask":
            about |= {"Type": "Lesion", "Threshold": report["settings"].get("threshold")}
            about |= {} if result.startswith("session") else found  # a session has a page of its own
            del about["SkullStripped"]
        if name.endswith("xfm.h5"):
            del about["SkullStripped"], about["SpatialReference"]
        write_whole(folder / f"{name.split('.')[0]}.json", json.dumps(about, indent=1, default=str))
    for ending in ("", "_session"):
        page = work / f"{stem}{ending}_report.html"
        if page.is_file():
            shutil.move(page, out / f"{stem}{ending}.html")
    person, session = (re.search(rf"{key}-[^_]+", stem) for key in ("sub", "ses"))
    return {
        "participant_id": person[0],
        "session_id": session[0] if session else "n/a",
        "scan": relative.as_posix(),
        "modality": report["modality"],
        "lesions": report["lesion_count"],
        "lesion_ml": report["lesion_volume_ml"],
        "flags": "; ".join(report["flags"]) or "n/a",
        "status": "ok",
    }


def _wanted(scan: Scan, sessions: Sequence[str], filters: Mapping[str, Any]) -> bool:
    """Whether a scan is asked for: by session, and by the entities of a filter file as fMRIPrep reads it."""
    stem = volume_stem(scan.files[0])
    entities = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
    entities["suffix"] = stem.rsplit("_", 1)[-1]
    if sessions and entities.get("ses") not in sessions:
        return False
    short = {"session": "ses", "acquisition": "acq", "reconstruction": "rec", "ceagent": "ce"}
    asked = filters.get(entities["suffix"].lower(), {})
    for key, value in asked.items():
        values = value if isinstance(value, list) else [value]
        if key not in ("datatype", "extension") and entities.get(short.get(key, key)) not in values:
            return False
    return True


def _bare(labels: Sequence[str], prefix: str) -> list[str]:
    return [label.removeprefix(f"{prefix}-") for label in labels]


def _row(scan: Scan, person: str, given: argparse.Namespace, work: Path, left_out: Sequence[str]) -> dict[str, Any]:
    """Arrange the results of a scan; its row of the table, with the reason where it has none."""
    try:
        return arrange(scan, given.bids_dir, work, given.output_dir)
    except FileNotFoundError:
        why = [line for line in left_out if scan.files[0].name in line] or ["no result; see what the command said"]
        relative = scan.files[0].relative_to(given.bids_dir).as_posix()
        return {"participant_id": person, "scan": relative, "modality": scan.modality or "n/a", "status": why[-1]}


def _participants(people: Mapping[str, Sequence[Scan]], given: argparse.Namespace, more: Sequence[str]) -> list[dict]:
    """Analyse the scans of some people by one command, and arrange what comes out; rows of the table.

    Several of these may run at once for other people of the same data set, as jobs of a cluster. So each has a folder of its own,
    the same one when it is started again.
    """
    work = given.output_dir / WORK / hashlib.sha256(" ".join(sorted(people)).encode()).hexdigest()[:12]
    work.mkdir(parents=True, exist_ok=True)
    entries = [
        {"subject": scan.subject, "image": str(scan.files[0]), "modality": scan.modality}
        for scans in people.values()
        for scan in scans
    ]
    write_whole(work / "list.json", json.dumps({"test": entries}))
    command = "normalizing" if given.normalize else "inferring"
    files = [str(CONFIGS / f"{name}.yaml") for name in COMMANDS[command]]
    left_out, rows = [], []
    with subprocess.Popen(
        [sys.executable, "-m", "monai.bundle", "run", command, "--config_file", str(files),
         "--input", str(work / "list.json"), "--output_dir", str(work), "--workers", str(given.nprocs), *more],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            print(line, end="", flush=True)
            if (told := line.strip()).startswith("left out: "):
                left_out.append(told.removeprefix("left out: "))
    for person, scans in people.items():
        of_person = [_row(scan, person, given, work, left_out) for scan in scans]
        write_whole(given.output_dir / WORK / f"{person}.json", json.dumps(of_person, indent=1))
        rows += of_person
    shutil.rmtree(work, ignore_errors=True)
    return rows


def _describe(given: argparse.Namespace) -> None:
    """``dataset_description.json``, and what no BIDS file is."""
    described = {
        "Name": "UNA: healthy anatomy and anomalies",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "una-healthy-anatomy", "Version": __version__, "Description": "una bids"}],
        "DatasetLinks": {"raw": given.bids_dir.as_uri()},
        "License": "n/a",
    }
    write_whole(given.output_dir / "dataset_description.json", json.dumps(described, indent=1))
    write_whole(given.output_dir / ".bidsignore", "*.html\nlesions.*\n")
    write_whole(
        given.output_dir / "README",
        "By una bids. Each volume has a JSON that says what it is. Research use only.\n",
    )


def _group(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The table of the cohort with its columns, and one page."""
    records = sorted((given.output_dir / WORK).glob("sub-*.json"))
    if not records:
        raise InputError(f"{given.output_dir} has no participant yet; run 'una bids ... participant' first")
    rows = [row for record in records for row in json.loads(record.read_text(encoding="utf-8"))]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).fillna("n/a")
    write_whole(given.output_dir / "lesions.tsv", table.to_csv(sep="\t", index=False))
    columns = {name: {"Description": told} for name, told in COLUMNS.items()}
    columns["lesion_ml"]["Units"] = "mL"
    write_whole(given.output_dir / "lesions.json", json.dumps(columns, indent=1))
    shown = table.to_dict("records")
    for row in shown:
        stem = volume_stem(row["scan"])
        for key, page in (("page", f"{stem}.html"), ("session_page", f"{stem}_session.html")):
            row[key] = page if (given.output_dir / page).is_file() else None
    text = (Path(__file__).parent / "report/bids.html").read_text(encoding="utf-8")
    page = jinja2.Template(text, autoescape=True).render(rows=shown, people=table["participant_id"].nunique())
    write_whole(given.output_dir / "index.html", page)
    print(f"{len(table)} scans: {given.output_dir / 'lesions.tsv'}, {given.output_dir / 'index.html'}", flush=True)
    return rows


def _arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="una bids",
        description="What is not listed here goes to 'una inferring', such as --device cpu or --threshold 2.",
    )
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("analysis_level", choices=("participant", "group"))
    parser.add_argument("--participant-label", "--participant_label", nargs="+", default=[], metavar="LABEL")
    parser.add_argument("--session-label", "--session_label", nargs="+", default=[], metavar="LABEL")
    parser.add_argument(
        "--bids-filter-file", type=Path, metavar="FILE", help='such as {"t1w": {"acquisition": "mprage"}}'
    )
    parser.add_argument("--nprocs", type=int, default=1, help="scans at a time: processes, or jobs of --cluster")
    parser.add_argument("--normalize", action="store_true", help="MNI space, too: see 'una normalizing'")
    parser.add_argument("--skip-bids-validation", action="store_true", help="accepted for the sake of other BIDS Apps")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_known_args(words)


def main(words: Sequence[str]) -> None:
    """Run the app.

    Args:
        words: the command line behind ``una bids``.

    Raises:
        InputError: when a folder, a participant or a filter file cannot be used; at the end, when a scan could not.
    """
    one_line_errors()
    given, more = _arguments(words)
    given.bids_dir, given.output_dir = given.bids_dir.resolve(), given.output_dir.resolve()
    if not (given.bids_dir / "dataset_description.json").is_file():
        raise InputError(
            f"{given.bids_dir} is no BIDS data set: it has no dataset_description.json; see bids.neuroimaging.io"
        )
    if given.nprocs < 1:
        raise InputError(f"--nprocs {given.nprocs} is not possible: it must be 1 or more")
    given.output_dir.mkdir(parents=True, exist_ok=True)
    _describe(given)
    if given.analysis_level == "group":
        bad = [row for row in _group(given) if row["status"] != "ok"]
    else:
        filters = json.loads(given.bids_filter_file.read_text(encoding="utf-8")) if given.bids_filter_file else {}
        people: dict[str, list[Scan]] = {}
        sessions = _bare(given.session_label, "ses")
        for scans in find_subjects(given.bids_dir).values():
            for scan in scans:
                if scan.modality not in COMPANIONS and _wanted(scan, sessions, filters):
                    people.setdefault(re.search(r"sub-[^_/]+", scan.subject)[0], []).append(scan)
        labels = [f"sub-{label}" for label in _bare(given.participant_label, "sub")]
        if unknown := [label for label in labels if label not in people]:
            raise InputError(
                f"{given.bids_dir} has no scan of {', '.join(unknown)} that is asked for; it has {', '.join(people)}"
            )
        chosen = {person: people[person] for person in labels or people}
        if not chosen:
            raise InputError(f"{given.bids_dir} has no scan that the session labels and the filter file leave")
        bad = [row for row in _participants(chosen, given, more) if row["status"] != "ok"]
    if bad:
        raise InputError(
            f"{len(bad)} scans could not be used (the others are done): {bad[0]['scan']}: {bad[0]['status']}"
        )
