"""Healthy people and diseased scans for ``run frontier``: ``PYTHONPATH=bundle python -m studies.frontier runs/frontier.json``.

Nobody in it trained, calibrated or was chosen on: the people and patients of ``../shared/data/evaluation``, and those that test by
`studies.aged` and ``healthy_split.json``. Groups are scanners. Scans of one person are a session. With the ``test.json`` of
`studies.healthy_cases` as a second argument some of the healthy people have T2w and FLAIR, too, which are made of their T1w.
"""

import json
import sys
from pathlib import Path

from . import SHARED, aged
from .training_data import HEALTHY

EVALUATION = SHARED / "evaluation"
LESIONS = {  # scan and tracing by subject
    **{
        f"ms19_{modality}": (EVALUATION / f"ms19_{modality}.nii.gz", EVALUATION / f"ms19_{modality}_lesion.nii.gz")
        for modality in ("T1w", "T2w", "FLAIR")
    },
    **{
        f"stroke2_{modality}": (
            EVALUATION / f"stroke2_{modality}.nii.gz",
            EVALUATION / f"stroke2_{modality}_lesion.nii.gz",
        )
        for modality in ("T1w", "T2w")
    },
    **{
        f"ms07_{modality}": (SHARED / f"ms_mni_patient07/{file}.nii.gz", SHARED / "ms_mni_patient07/lesion.nii.gz")
        for modality, file in {"T1w": "t1", "T2w": "t2", "FLAIR": "flair"}.items()
    },
    "stroke1_T2w": (SHARED / "stroke_t2/t2.nii.gz", SHARED / "stroke_t2/lesion.nii.gz"),
    **{
        f"tumour{number}_{kind}": (
            EVALUATION / f"tumour{number}_{file}.nii.gz",
            EVALUATION / f"tumour{number}_FLAIR_lesion.nii.gz",
        )
        for number in (1, 2, 3)
        for kind, file in {"FLAIR": "FLAIR", "T1wce": "ce-gd_T1w"}.items()
    },
}
MODALITY = {"T1w": "t1", "T2w": "t2", "FLAIR": "flair", "T1wce": "t1c"}
TRAINED_WITH = "ms07"  # a pair that trains, outside of its lesions; in the tables it stands by itself


def healthy_people() -> dict[str, list[Path]]:
    """T1w of the healthy people by group."""
    return {
        "20 to 80 years, 3 T": [
            *sorted(EVALUATION.glob("aged_*_T1w.nii.gz")),
            *(aged.FOLDER / f"{name}_T1w.nii.gz" for name in aged.people()["test"]),
        ],
        "older, 1.5 T": sorted(EVALUATION.glob("older*_T1w.nii.gz")),
        "18 to 55 years, two scanners": [SHARED / f"healthy_t1w/{name}_T1w.nii.gz" for name in HEALTHY["test"]],
    }


def named(file: Path, subject: str, folder: Path) -> str:
    """A link to a scan whose name is that of its subject, since two scans of a datalist may not have one name."""
    link = folder / f"{subject}.nii.gz"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(file.resolve())
    return str(link)


def made_contrasts(path: Path) -> list[dict]:
    """The T2w and FLAIR of the people that test, see `studies.healthy_cases`."""
    made = [entry for entry in json.loads(path.read_text())["test"] if entry["subject"] in HEALTHY["test"]]
    return [
        {**entry, "image": str(path.parent / entry["image"]), "group": "made of T1w"}
        for entry in made
        if entry["modality"] in ("t2", "flair")
    ]


def write_frontier(path: Path, made: Path | None = None) -> Path:
    """Write the datalist, and beside it links to the scans."""
    links = path.parent / f"{path.stem}_scans"
    entries = [
        {"subject": name, "image": named(file, name, links), "modality": "t1", "group": group, "diseased": False}
        for group, files in healthy_people().items()
        for file in files
        for name in [file.name.split("_T1w")[0]]
    ]
    for subject, (image, lesion) in LESIONS.items():
        modality = MODALITY[subject.split("_")[1]]
        person = subject.split("_")[0]
        known = {"subject": person, "image": named(image, subject, links), "modality": modality}
        disease = person if person == TRAINED_WITH else person.rstrip("0123456789")
        entries.append({**known, "lesion": str(lesion), "group": disease})
    entries += made_contrasts(made) if made else []
    path.write_text(json.dumps({"test": entries}, indent=1))
    return path


if __name__ == "__main__":
    print(write_frontier(*(Path(argument).resolve() for argument in sys.argv[1:])))
