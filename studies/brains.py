"""How well the brain is found in whole heads: ``PYTHONPATH=bundle python -m studies.brains runs/brains``.

Heads whose brain is known are drawn from the sixteen label maps of ``../shared/data`` as T1w, T2w, FLAIR and CT, with fat, marrow,
bone, eyes and sinuses around it, a medium bias field and noise. ``brains.csv`` has each method's Dice, surface errors and time,
and ``real_heads.png`` shows what each marks in real heads, whose brain nobody traced. Methods: ``deepbet``, ``template``, and
``hd-bet`` where its package is installed, or those that are named after the folder. A CT always goes to the template.
"""

import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from monai.data import MetaTensor
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.transforms import Compose, KeepLargestConnectedComponent, Orientation
from scipy.ndimage import gaussian_filter
from scripts.appearance import RandGridBiasField
from scripts.config import from_config
from scripts.labels import LabelTable, TrimLabelsd
from scripts.neighbourhood import closed
from scripts.preprocessing.hd_bet import hd_bet_installed
from scripts.volumes import on_grid, read_volume, volume_stem
from tqdm import tqdm

from . import SHARED
from .healthy_cases import APPEARANCES, BIAS_FIELDS, like, save
from .real_scans import to_hounsfield

OUTSIDE = {"soft tissue": 507, "skin": 511, "bone": 515, "marrow": 516, "sinus": 514, "mucosa": 509, "eye": 506}
MUSCLE_AND_FAT = {"t1": (85, 210), "t2": (50, 170), "flair": (60, 190), "ct": (75, 5)}
AROUND = {  # on the scale of APPEARANCES, as which CT is 0 to 80 HU
    "t1": {"skin": 120, "bone": 12, "marrow": 180, "sinus": 60, "mucosa": 90, "eye": 30},
    "t2": {"skin": 90, "bone": 12, "marrow": 120, "sinus": 40, "mucosa": 180, "eye": 240},
    "flair": {"skin": 100, "bone": 12, "marrow": 130, "sinus": 40, "mucosa": 170, "eye": 25},
    "ct": {"skin": 90, "bone": 255, "marrow": 255, "sinus": 150, "mucosa": 110, "eye": 30},
}
CEREBELLUM = [7, 8, 46, 47]
REAL_HEADS = {
    "Colin27": "templates/colin27_t1_1mm.nii.gz",
    "studyforrest, defaced": "templates/healthy_t1_head_studyforrest.nii.gz",
    "healthy, defaced": "healthy_t1w/sub-l02_T1w.nii.gz",
    **{f"MS {n}, {m}": f"ms_raw/patient{n}/study1_{m}.nii.gz" for n in ("01", "12") for m in ("T1W", "T2W", "FLAIR")},
    "mean CT": "templates/ct_elderly_2mm.nii.gz",
}


def head_of(label_map: MetaTensor, modality: str, labels: LabelTable, random: np.random.RandomState) -> MetaTensor:
    """A head of a modality on the grid of its label map; a CT in Hounsfield units."""
    numbers = np.asarray(label_map[0]).astype(int)
    muscle, fat = MUSCLE_AND_FAT[modality]
    mottled = gaussian_filter(random.standard_normal(numbers.shape).astype(np.float32), 4.0)
    values = np.where(numbers > 0, float(muscle), 0.0)
    for part, level in AROUND[modality].items():
        values[numbers == OUTSIDE[part]] = level
    soft = numbers == OUTSIDE["soft tissue"]
    values[soft] = np.where(mottled[soft] > 0, fat, muscle)
    for tissue, levels in APPEARANCES[modality].items():
        values[np.isin(numbers, labels.tissues[tissue])] = np.mean(levels)
    inside = values > 0
    values += inside * random.normal(0.0, 0.04 * values + 1.0)
    values = gaussian_filter(values, 0.5) + np.abs(random.normal(0.0, 2.0, values.shape))
    if modality == "ct":
        return like(label_map, np.where(inside, np.where(values > 200, 700.0, values * 80.0 / 255.0), -1000.0))
    field = RandGridBiasField(*BIAS_FIELDS["medium"]).set_random_state(state=random)
    return MetaTensor(field(like(label_map, values)).as_tensor(), affine=label_map.affine)


def lowest_of(label_map: MetaTensor, numbers: list[int]) -> float:
    """Height of the lowest voxel of some labels, RAS mm."""
    voxels = np.argwhere(np.isin(np.asarray(label_map[0]), numbers))
    return float((voxels @ np.asarray(label_map.affine)[2, :3] + float(label_map.affine[2, 3])).min())


def errors(mask: MetaTensor, brain: MetaTensor) -> dict[str, float]:
    """Dice, and the surface errors (mm) that a twentieth and none of the surface exceeds."""
    pair, spacing = [volume[None] > 0.5 for volume in (mask, brain)], mask.pixdim.tolist()
    surface = {
        name: float(compute_hausdorff_distance(*pair, include_background=True, percentile=share, spacing=spacing))
        for name, share in (("surface_95", 95), ("surface_worst", 100))
    }
    return {"dice": float(compute_dice(*pair)), **surface}


class Methods:
    """Each method of finding the brain, on the grid on which ``run inferring`` works."""

    def __init__(self, names: list[str]) -> None:
        chains = {name: from_config("evaluation.yaml", "read", {"brain_method": name}) for name in names}
        self.before, self.extract = chains[names[0]][:4], {name: chain[4] for name, chain in chains.items()}

    def __call__(self, path: Path, modality: str | None):
        """The scan as the methods see it, and of each name, mask and seconds."""
        prepared = Compose(self.before)({"image": str(path), **({"modality": modality} if modality else {})})
        found = []
        for name, extract in self.extract.items():
            if prepared.get("modality") == "ct" and name != "template":
                continue  # the template does it for them
            started = time.monotonic()
            mask = extract(dict(prepared))["brain"]
            found.append((name, mask, time.monotonic() - started))
        return prepared["image"], found


def drawn_heads(methods: Methods, folder: Path) -> pd.DataFrame:
    labels, closing = (from_config("generator.yaml", part, {}) for part in ("labels", "csf_closing"))
    largest, trim = KeepLargestConnectedComponent(), TrimLabelsd("label", outer=[24], radius=closing)
    rows = []
    for number, path in enumerate(tqdm(sorted((SHARED / "label_maps").glob("*.nii.gz")))):
        label_map = Orientation("RAS", labels=None)(read_volume(path))
        brain = largest(trim({"label": labels.clean(label_map)})["label"] > 0)
        # Every brain extraction counts what lies in the clefts, as vessels and falx, as brain.
        brain = like(brain, closed(brain.as_tensor() > 0, closing, brain.pixdim.tolist())[0].numpy())
        # Where the brain stem ends is a matter of taste: nothing is compared below the cerebellum.
        bottom = lowest_of(label_map, CEREBELLUM)
        for modality in AROUND:
            head = head_of(label_map, modality, labels, np.random.RandomState([21, number]))
            file = folder / save(head, folder / f"{volume_stem(path)}_{modality}.nii.gz")
            scan, found = methods(file, modality)
            truth = on_grid(brain, scan)
            first = round(float(np.linalg.solve(np.asarray(scan.affine), [0.0, 0.0, bottom, 1.0])[2]))
            for name, mask, seconds in found:
                about = {"head": volume_stem(path), "modality": modality, "method": name}
                off = errors(mask[..., first:], truth[..., first:])
                rows.append({**about, "used": mask.meta["brain_method"], **off, "seconds": seconds})
            file.unlink()
        pd.DataFrame(rows).to_csv(folder / "brains.csv", index=False)
    return pd.DataFrame(rows)


def real_heads(methods: Methods, folder: Path) -> Path:
    """A picture: a row a head, a column a method, the brain's outline in an axial and in the middle sagittal section."""
    figure, axes = plt.subplots(
        len(REAL_HEADS), 2 * len(methods.extract), figsize=(4 * len(methods.extract), 2.1 * len(REAL_HEADS))
    )
    for row, (title, file) in zip(axes, REAL_HEADS.items()):
        path, modality = SHARED / file, None
        if "CT" in title:
            units = nib.load(path)
            path, modality = folder / "mean_ct.nii.gz", "ct"
            nib.save(nib.Nifti1Image(to_hounsfield(units.get_fdata()).astype(np.int16), units.affine), path)
        scan, found = methods(path, modality)
        values = np.asarray(scan[0])
        middle = [int(np.median(v)) for v in np.nonzero(np.asarray(found[0][1][0]) > 0)]
        for shown in row:
            shown.set_axis_off()
        for column, (name, mask, _) in enumerate(found):
            for side, axis in enumerate((2, 0)):
                shown = row[2 * column + side]
                sections = [np.take(volume, middle[axis], axis).T for volume in (values, np.asarray(mask[0]))]
                shown.imshow(sections[0], origin="lower", cmap="gray", vmax=np.percentile(values[values > 0], 98))
                shown.contour(sections[1], [0.5], colors="red", linewidths=0.9)
            row[2 * column].set_title(f"{title}: {name}", fontsize=8, loc="left")
    figure.tight_layout(pad=0.3)
    figure.savefig(folder / "real_heads.png", dpi=70)
    return folder / "real_heads.png"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    methods = Methods(sys.argv[2:] or ["deepbet", "template", *(["hd-bet"] if hd_bet_installed() else [])])
    table = drawn_heads(methods, folder)
    columns = ["dice", "surface_95", "surface_worst", "seconds"]
    print(table.groupby(["modality", "method"])[columns].agg(["median", "min", "max"]).round(3).to_string())
    print(real_heads(methods, folder))
