"""Compare the method of this folder with two others on simulated lesions: ``compare.py [OUTPUT]``; minutes on two cores."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUNDLE = HERE.parents[1] / "bundle"


def compare(output: Path, *more: str) -> Path:
    """Run the comparison, and return the page that it wrote."""
    methods = ["intensity", "contralateral", str(HERE / "local_contrast.yaml")]
    files = [str(BUNDLE / "configs" / name) for name in ("compare.yaml", "sizes/toy.yaml")]
    command = [sys.executable, "-m", "monai.bundle", "run", "comparing", "--config_file", str(files)]
    command += ["--methods", str(methods), "--output_dir", str(output), *more]
    path = os.pathsep.join([str(BUNDLE), str(HERE), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    return output / "report.html"


if __name__ == "__main__":
    print(compare(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own_method")))
