"""Does the healthy T1w bring a lesion to MNI space better? ``PYTHONPATH=bundle python -m studies.standard_space D [engine]``.

Twenty lesions of 20 to 200 ml are painted into the T1w of healthy people who test (`studies.aged`): cavities and gray lesions by
turns, deep and cortical by turns, half of them with mass effect. Each scan goes to the template in seven ways: as it is, with the
lesion masked (cost-function masking), with the lesion filled from the mirrored side (enantiomorphic), by its healthy T1w, and by
the scan that UNA fills; both fillings where the lesion is and where UNA finds it. The registration of the same person without the
lesion is the truth. Masking and the first two fillings know the true lesion; the healthy T1w and the last two know nothing.
``D/ENGINE.csv`` has a row a lesion and way:

- ``near``, ``far``: mean distance (mm) from the true point of the person, within and beyond 20 mm of the lesion, in the brain;
- ``dice``: of nine structures a side in the template, against those that the truth brings there, mean;
- ``least_jacobian``; ``volume``: of the lesion in the template, as a share of the true one;
- ``csf``, ``gray_matter``, ``white_matter``: error of the volume outside of the lesion, % of the true one, by a mixture of three
  Gaussians of the image that is registered.

A run that was stopped goes on where it was.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice
from monai.networks.blocks import Warp
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.stats import wilcoxon
from scripts.config import from_config
from scripts.deformation.expansion import expansion_field
from scripts.methods import Guest
from scripts.preprocessing import AlignToRAS, tissue_labels
from scripts.residual import FillLesion, FineDetaild
from scripts.standard_space import TemplateMaps, load_template, register_to_template
from scripts.volumes import on_grid, read_volume
from tqdm import tqdm

from .aged import FOLDER, freesurfer_labels, people
from .healthy_cases import CAVITY_ML, like, with_cavity

COUNT = 20  # lesions
PUSH = 4.0  # mm by which mass effect moves tissue at most
REACH = 8.0  # mm, how far it is felt
NEAR = 20.0  # mm
STEP = 4  # voxels of the template from one measured point to the next
STRUCTURES = (10, 49, 11, 50, 12, 51, 17, 53, 4, 43, 7, 46, 8, 47, 2, 41, 3, 42)  # thalamus ... cortex, left and right
WAYS = (
    "as it is",
    "lesion masked",
    "filled from the mirror",
    "healthy T1w",
    "filled by UNA",
    "filled as found",
    "mirror as found",
    "filled by both",
    "both as found",
)
TISSUES = {"csf": 24, "gray_matter": 3, "white_matter": 2}


class Person:
    """A healthy person: T1w and labels, RAS at 1 mm, and the way to the template."""

    def __init__(self, name: str, template: MetaTensor, engine: str) -> None:
        self.t1 = AlignToRAS(1.0)(read_volume(FOLDER / f"{name}_T1w.nii.gz"))
        muse = read_volume(FOLDER / f"{name}_muse.nii.gz")
        labels = MetaTensor(torch.from_numpy(freesurfer_labels(muse).astype(np.float32))[None], affine=muse.affine)
        self.labels = on_grid(labels, self.t1, "nearest")
        self.t1 = MetaTensor(self.t1.as_tensor() * (self.labels > 0), affine=self.t1.affine)
        self.maps = register_to_template(self.t1, template, engine)


def pushed(volumes: dict[str, MetaTensor], lesion: MetaTensor) -> tuple[dict[str, MetaTensor], np.ndarray]:
    """Volumes after the mass effect of a lesion, and where each voxel came from: a displacement ``(3, X, Y, Z)``, mm."""
    field = expansion_field(lesion.as_tensor(), PUSH, REACH)
    modes = {name: "nearest" if name in ("labels", "lesion") else "bilinear" for name in volumes}
    moved = {
        name: MetaTensor(Warp(modes[name], "zeros")(volume.as_tensor()[None].float(), field)[0], affine=volume.affine)
        for name, volume in volumes.items()
    }
    return moved, field[0].numpy()  # The grid is RAS at 1 mm, so that voxels are mm.


def came_from(points: np.ndarray, displacement: np.ndarray, grid: MetaTensor) -> np.ndarray:
    """Points ``(N, 3)`` of the scan with mass effect, RAS mm, back in the scan without."""
    affine = np.asarray(grid.affine)
    voxels = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    moved = np.stack([map_coordinates(axis, voxels.T, order=1) for axis in displacement], axis=1)
    return points + moved @ affine[:3, :3].T


def drawn_by_una(scan: MetaTensor, lesion: MetaTensor, file: Path) -> dict[str, MetaTensor]:
    """The healthy T1w, and the scan with its lesion filled from the mirror and by UNA; on the grid of the scan."""
    nib.save(nib.Nifti1Image(np.asarray(scan[0]), np.asarray(scan.affine)), file)
    data = from_config("evaluation.yaml", "preparation", {})({"image": str(file), "modality": "t1", "subject": "x"})
    guest, postprocessing = Guest("una", {}), from_config("evaluation.yaml", "postprocessing", {})
    data = FineDetaild("pred_healthy")({**data, **guest(data)})
    intact = on_grid(data["pred_intact"], scan)
    found = postprocessing.mask(postprocessing(data["score"], data["brain"]), guest["threshold"], scan)
    fill, inside = FillLesion(2.0), scan > 0
    images = {
        "healthy T1w": data["pred_healthy"],
        "filled from the mirror": fill(on_grid(data["mirrored"], scan), scan, lesion),
        "filled by UNA": fill(intact, scan, lesion),
        "filled as found": fill(intact, scan, found),
        "mirror as found": fill(on_grid(data["mirrored"], scan), scan, found),
        "filled by both": fill(intact, scan, lesion, data["mirror_transform"]),
        "both as found": fill(intact, scan, found, data["mirror_transform"]),
    }
    return {name: MetaTensor(image.as_tensor() * inside, affine=scan.affine) for name, image in images.items()}


def structure_dice(one: MetaTensor, other: MetaTensor) -> float:
    """Mean Dice of the structures of two label maps."""
    masks = [torch.cat([labels.as_tensor() == number for number in STRUCTURES])[None] for labels in (one, other)]
    return float(compute_dice(*masks).nanmean())


def volumes_outside(image: MetaTensor, lesion: MetaTensor) -> dict[str, float]:
    labels = np.asarray(tissue_labels(image, image > 0, np.eye(4))[0])
    outside = np.asarray(lesion[0]) < 0.5
    return {tissue: float((labels[outside] == number).sum()) for tissue, number in TISSUES.items()}


def compared(
    number: int, ways: list[str], person: Person, template: MetaTensor, engine: str, folder: Path
) -> list[dict]:
    """The rows of a lesion, one a way."""
    random = np.random.RandomState(number)
    ml = CAVITY_ML[0] * (CAVITY_ML[1] / CAVITY_ML[0]) ** (number / (COUNT - 1))
    gray, cortical, mass = number % 2 == 1, number // 2 % 2 == 1, number // 4 % 2 == 1
    scan, lesion = with_cavity(person.t1, ml, cortical, random, level=30.0 if gray else 3.0)
    scan = on_grid(scan, person.t1)
    volumes = {"scan": scan, "lesion": on_grid(lesion, scan, "nearest"), "labels": person.labels, "t1": person.t1}
    displacement = np.zeros((3, *scan.shape[1:]))
    if mass:
        volumes, displacement = pushed(volumes, volumes["lesion"])
    scan, lesion = volumes["scan"], volumes["lesion"]
    images = {
        "as it is": scan,
        "lesion masked": scan,
        **drawn_by_una(scan, lesion, folder / f"lesion{number:02d}.nii.gz"),
    }

    brain = np.asarray(template[0]) > 0
    inside = np.zeros_like(brain)
    inside[::STEP, ::STEP, ::STEP] = brain[::STEP, ::STEP, ::STEP]
    affine = np.asarray(template.affine)
    points = np.argwhere(inside) @ affine[:3, :3].T + affine[:3, 3]
    true = person.maps.points_to_scan(points)
    away = distance_transform_edt(np.asarray(lesion[0]) < 0.5)
    own = np.asarray(scan.affine)
    voxels = (true - own[:3, 3]) @ np.linalg.inv(own[:3, :3]).T
    near = map_coordinates(away, voxels.T, order=1, mode="nearest") <= NEAR
    known = person.maps.onto_template(person.labels, template, "nearest")
    true_volume = float(person.maps.onto_template(came_back(lesion, displacement), template).sum())
    right = volumes_outside(volumes["t1"], lesion)

    rows = []
    for way in ways:
        counted = None
        if way == "lesion masked":
            counted = MetaTensor((lesion < 0.5).float().as_tensor(), affine=scan.affine)
        maps: TemplateMaps = register_to_template(images[way], template, engine, counted=counted)
        apart = np.linalg.norm(came_from(maps.points_to_scan(points), displacement, scan) - true, axis=1)
        tissue = volumes_outside(images[way], lesion)
        rows.append(
            {
                "lesion": number,
                "ml": ml,
                "kind": "gray" if gray else "cavity",
                "place": "cortical" if cortical else "deep",
                "mass effect": mass,
                "way": way,
                "near": float(apart[near].mean()),
                "far": float(apart[~near].mean()),
                "dice": structure_dice(maps.onto_template(volumes["labels"], template, "nearest"), known),
                "least_jacobian": maps.least_jacobian,
                "volume": float(maps.onto_template(lesion, template).sum()) / true_volume,
                **{name: 100.0 * (tissue[name] / right[name] - 1.0) for name in TISSUES},
            }
        )
    return rows


def came_back(lesion: MetaTensor, displacement: np.ndarray) -> MetaTensor:
    """The lesion as it would lie in the scan without mass effect: where its voxels came from."""
    voxels = np.argwhere(np.asarray(lesion[0]) > 0.5)
    sources = np.round(voxels + np.stack([axis[tuple(voxels.T)] for axis in displacement], axis=1)).astype(int)
    sources = np.clip(sources, 0, np.array(lesion.shape[1:]) - 1)
    mask = np.zeros(lesion.shape[1:])
    mask[tuple(sources.T)] = 1.0
    return like(lesion, mask)


def write_table(folder: Path, engine: str) -> pd.DataFrame:
    folder.mkdir(parents=True, exist_ok=True)
    path, template = folder / f"{engine}.csv", load_template("icbm_2009c_asymmetric")
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    done = {(row["lesion"], row["way"]) for row in rows}
    names = people()["test"]
    for start, name in enumerate(tqdm(names)):
        numbers = range(start, COUNT, len(names))
        todo = {number: [way for way in WAYS if (number, way) not in done] for number in numbers}
        if not any(todo.values()):
            continue
        person = Person(name, template, engine)
        for number, ways in todo.items():
            rows += compared(number, ways, person, template, engine, folder) if ways else []
            pd.DataFrame(rows).to_csv(path, index=False)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means by way, and the p of a paired test of ``near`` against the scan as it is (Wilcoxon's, over lesions)."""
    means = table.groupby("way", sort=False).agg(
        near=("near", "mean"),
        far=("far", "mean"),
        dice=("dice", "mean"),
        least_jacobian=("least_jacobian", "min"),
        volume=("volume", lambda share: float((share - 1).abs().mean())),
        **{name: (name, lambda error: float(error.abs().mean())) for name in TISSUES},
    )
    near = table.pivot(index="lesion", columns="way", values="near")
    means["p"] = [1.0 if way == WAYS[0] else float(wilcoxon(near[way], near[WAYS[0]]).pvalue) for way in means.index]
    return means


def picture(table: pd.DataFrame, path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    for axes, measure in zip(panels, ("near", "far")):
        values = table.pivot(index="lesion", columns="way", values=measure)[list(WAYS)]
        for _, line in values.iterrows():
            axes.plot(range(len(WAYS)), line, color="0.8", linewidth=0.8)
        axes.boxplot(values.to_numpy(), positions=range(len(WAYS)), widths=0.5, showfliers=False)
        axes.set_xticks(range(len(WAYS)), WAYS, rotation=20, ha="right", fontsize=8)
        axes.set(
            ylabel="error, mm",
            ylim=(0, None),
            title=f"{'within' if measure == 'near' else 'beyond'} 2 cm of the lesion",
        )
    figure.savefig(path, dpi=120, bbox_inches="tight", facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    folder, engine = Path(sys.argv[1]), (sys.argv[2:] or ["elastix"])[0]
    table = write_table(folder, engine)
    picture(table, folder / f"{engine}.png")
    print(summary(table).round(3).to_string())
