"""What an uneven coil costs in T2w, FLAIR and T1w: ``PYTHONPATH=bundle python -m studies.coils runs/healthy runs/coils.csv``.

The first folder is that of `studies.healthy_cases`. The prepared scans of each of the eight people that test get the medium and the
severe bias field of Table B.1, on the working grid, where it has 2 to 4 points along each axis; the table has what UNA then finds
in them, ml. A third argument are settings of UNA, in JSON.
"""

import json
import sys
from pathlib import Path

import pandas as pd
from scripts.appearance import RandGridBiasField, ScaleToUnit
from scripts.config import from_config
from scripts.data import ScanCache, find_scans
from scripts.methods import Guest
from scripts.symmetry import Mirror
from scripts.volumes import voxel_ml
from tqdm import tqdm

from .healthy_cases import BIAS_FIELDS


def found_under_bias(folder: Path, settings: dict) -> pd.DataFrame:
    """A row a scan, a column a level, ml."""
    scans = [scan for scan in find_scans(folder / "test.json") if scan["modality"] in ("t1", "t2", "flair")]
    scans = [scan for scan in scans if "label_map" not in scan["subject"]]
    # The number of a scan draws its field, and T1w came to this study last: the fields of the others stay.
    scans.sort(key=lambda scan: scan["modality"] == "t1")
    guest = Guest("una", settings)
    postprocessing = from_config("evaluation.yaml", "postprocessing", {})
    rows = []
    for number, case in enumerate(tqdm(ScanCache(scans, from_config("evaluation.yaml", "preparation", {}), None))):
        row = {"subject": case["subject"]}
        for level, field in BIAS_FIELDS.items():
            scan = ScaleToUnit()(RandGridBiasField(*field).set_random_state(number)(case["scan"]))
            score = guest({**case, "scan": scan, "mirrored": Mirror()(scan, case["mirror_transform"])})["score"]
            lesion = postprocessing.mask(postprocessing(score, case["brain"]), guest["threshold"])
            row[level] = round(float(lesion.sum()) * voxel_ml(lesion), 2)
        rows.append(row)
    return pd.DataFrame(rows).set_index("subject")


if __name__ == "__main__":
    table = found_under_bias(Path(sys.argv[1]), json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
    table.to_csv(sys.argv[2])
    print(table.groupby(table.index.str.rsplit("_", n=1).str[-1]).agg(["median", "max"]))
