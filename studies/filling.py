"""How well lesions are filled in people of another scanner: ``PYTHONPATH=bundle python -m studies.filling runs/filling``.

A lesion of 20 to 200 ml is painted into each ``aged*`` T1w of the evaluation data: cavities and gray lesions by turns, deep and
cortical by turns. ``filling.csv`` has the PSNR (dB) in the lesion against the T1w without it: of the intact scan, of the mirror
image and of the healthy T1w, each brought to the scale of the truth by one factor, and of the filled scan that `inferring`
writes for this lesion.
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.stats import wilcoxon
from scripts.config import from_config
from scripts.evaluation import psnr_in_lesion
from scripts.methods import Guest
from scripts.preprocessing import AlignToRAS
from scripts.residual import FillLesion
from scripts.volumes import on_grid, read_volume
from tqdm import tqdm

from .frontier import EVALUATION
from .healthy_cases import CAVITY_ML, with_cavity

WAYS = {"intact": "pred_intact", "mirror": "mirrored", "healthy": "pred_healthy", "filled": "filled"}


def write_filling(folder: Path) -> pd.DataFrame:
    """Write the painted scans and ``filling.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare, guest = from_config("evaluation.yaml", "preparation", {}), Guest("una", {})
    files = sorted(EVALUATION.glob("aged_*_T1w.nii.gz"))
    rows = []
    for number, file in enumerate(tqdm(files)):
        truth = AlignToRAS(1.0)(read_volume(file))
        gray, cortical = number % 2 == 1, number // 2 % 2 == 1
        ml = CAVITY_ML[0] * (CAVITY_ML[1] / CAVITY_ML[0]) ** (number / (len(files) - 1))
        painted, lesion = with_cavity(truth, ml, cortical, np.random.RandomState(number), level=30.0 if gray else 3.0)
        path = folder / file.name
        nib.save(nib.Nifti1Image(np.asarray(painted[0]), np.asarray(painted.affine)), path)
        data = prepare({"image": str(path), "modality": "t1", "subject": path.name})
        data |= guest(data)
        brain, target = data["brain"] > 0.5, on_grid(truth, data["scan"])
        target = target / target[brain].quantile(0.99)
        inside = on_grid(lesion, data["scan"]) > 0.5
        data["filled"] = FillLesion(0.0)(data["pred_intact"], data["scan"], inside, data["mirror_transform"])
        known = {"subject": file.name.split("_T1w")[0], "ml": ml, "kind": "gray" if gray else "cavity"}
        rows.append({**known, **{way: psnr_in_lesion(data[key], target, brain, inside) for way, key in WAYS.items()}})
    table = pd.DataFrame(rows)
    table.to_csv(folder / "filling.csv", index=False)
    return table


if __name__ == "__main__":
    table = write_filling(Path(sys.argv[1]))
    print(table.groupby("kind")[list(WAYS)].mean().round(2).to_string())
    print(table[list(WAYS)].mean().round(2).to_string())
    for way in ("intact", "filled"):
        print(f"{way} against mirror: p = {wilcoxon(table[way], table['mirror']).pvalue:.3g}")
