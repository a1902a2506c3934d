"""From a raw scan to a prepared one, step by step."""

from __future__ import annotations

from pathlib import Path

from monai.transforms import Compose, Spacing
from scripts.config import from_config, parse
from scripts.data import write_sample_subject
from scripts.preprocessing import rigid_registration, template_displacement, tissue_labels
from scripts.symmetry import estimate_mirror

from .fluid import SHARED
from .machine import Yardsticks, peak_megabytes, timed

RAW = SHARED / "ms_raw" / "patient01"


def prepare(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Each step of `preprocessing` on a raw T1w head (the sample brain where no raw scan is at hand), and its memory."""
    registration = parse(["register_lesions.yaml"], {})
    chain = from_config("preprocess.yaml", "scan_chain", {}).transforms
    raw = RAW / "study1_T1W.nii.gz"
    scan = raw if raw.is_file() else write_sample_subject(directory).parent / "t1.nii.gz"
    spent: dict[str, float] = {}
    found: dict = {}

    def whole() -> None:
        found.update(Compose([timed(t, spent, type(t).__name__) for t in chain])({"image": str(scan)}))
        found["mirror"] = timed(estimate_mirror, spent, "EstimateMirror")(found["image"], found["brain"])

    memory = peak_megabytes(whole)
    once = dict(spent)
    optional = {
        "rigid registration of a second scan": lambda: rigid_registration(found["image"], found["image"]),
        "three tissues": lambda: tissue_labels(found["image"], found["brain"], found["mirror"]),
        "affine and B-spline to the template": lambda: template_displacement(
            Spacing([2.0] * 3)(found["image"]), registration["grid_spacing"], registration["bending"]
        ),
    }
    for name, work in optional.items():
        timed(work, spent, name)()
    results = [yardsticks.record("one raw scan", scan.name, sum(once.values()), peak_mb=round(memory))]
    return results + [yardsticks.record(f"  {name}", scan.name, seconds) for name, seconds in spent.items()]
