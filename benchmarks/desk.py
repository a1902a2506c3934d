"""What a reader waits for: the first model on a scan, and the next ones, which answer from the same analysis."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.config import CONFIGS
from scripts.data import write_sample_subject

from .fluid import SHARED
from .machine import Yardsticks, now, peak_megabytes

APP = CONFIGS.parents[1] / "monailabel_app"


def desk(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """`una_anomaly` on a 1 mm head and on a brain-extracted 1 mm scan, from the file to the mask on the scan's grid."""
    sys.path.insert(0, str(APP))
    from lib.analysis import Analyst
    from lib.results import Anomaly

    head, brain = SHARED / "templates/colin27_t1_1mm.nii.gz", write_sample_subject(directory).parent / "t1.nii.gz"
    results = []
    for name, scan in {"1 mm head": head, "1 mm brain": brain}.items():
        if not scan.is_file():
            continue
        task = Anomaly(Analyst(APP / "variants/una.yaml", CONFIGS.parent, directory))
        spent = []

        def infer(task=task, scan=scan, spent=spent) -> None:
            start = now()
            Path(task({"image": str(scan)})[0]).unlink()
            spent.append(now() - start)

        memory = peak_megabytes(infer)
        infer()
        results.append(yardsticks.record("una_anomaly, first", name, spent[0], peak_mb=round(memory)))
        results.append(yardsticks.record("una_anomaly, again", name, spent[1]))
    return results
