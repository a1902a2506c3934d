"""Find lesions in a folder of scans, and print one line for each scan: ``find_lesions.py FOLDER OUTPUT``."""

import json
import sys
from pathlib import Path

BUNDLE = Path(__file__).parents[1] / "bundle"
sys.path.insert(0, str(BUNDLE))  # the configs name the package of the bundle, `scripts`

from monai.bundle import run  # noqa: E402


def find_lesions(folder: Path, output: Path) -> list[dict]:
    """The reports of all scans in a folder."""
    run(
        run_id="inferring",
        config_file=str(BUNDLE / "configs/inference.yaml"),
        input=str(folder),
        output_dir=str(output),
    )
    return [json.loads(file.read_text()) for file in sorted(output.rglob("*_report.json"))]


if __name__ == "__main__":
    for report in find_lesions(Path(sys.argv[1]), Path(sys.argv[2])):
        volumes = report["lesion_volumes_ml"]
        print(f"{report['scan']} ({report['modality']}): {len(volumes)} lesions, {sum(volumes):.1f} ml in all")
