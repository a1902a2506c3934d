"""Write generated samples as a cohort of files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..saving import save_volume, write_whole

__all__ = ["as_new_subject", "write_cohort"]

# By the ending of its file, which the datalist shares, the item of a sample.
COHORT = {"image": "scan", "mirrored": "mirrored", "healthy": "healthy", "anomaly": "anomaly", "label": "label"}


def as_new_subject(
    affine: np.ndarray, shape: Sequence[int], voxel_size: float, mirror_transform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give a deformed sample a world of its own: a plain RAS grid centred on the origin.

    The affine of a sample points back into the subject it was made of; as a file it is another person's scan.

    Args:
        affine: of the sample, to the source subject's RAS mm.
        shape: of the sample.
        voxel_size: mm.
        mirror_transform: in the source subject's RAS mm.

    Returns:
        the new affine, and the mirror transform in the new RAS mm.
    """
    new_affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    new_affine[:3, 3] = -voxel_size * (np.asarray(shape) - 1) / 2
    to_source = affine @ np.linalg.inv(new_affine)
    return new_affine, np.linalg.inv(to_source) @ mirror_transform @ to_source


def write_cohort(
    samples: Dataset, output_dir: str | Path, number: int, voxel_size: float, prefix: str = "case"
) -> Path:
    """Write draws 0 to ``number - 1`` as NIfTI (image, mirrored, healthy, anomaly, label) and a datalist.

    Args:
        samples: draws, see `DrawDataset`.
        output_dir: one folder a case goes here.
        number: how many.
        voxel_size: mm, of the samples.
        prefix: of the names of the cases.

    Returns:
        path of the datalist. Its ``test`` entries have ``image`` and ``mirror_transform`` for inference, and the other
        files for evaluation.
    """
    output_dir = Path(output_dir)
    entries: list[dict[str, Any]] = []
    for draw in tqdm(range(number), desc="generating"):
        sample = samples[draw]
        case = f"{prefix}_{draw:04d}"
        affine, mirror_transform = as_new_subject(
            np.asarray(sample["scan"].affine),
            sample["scan"].shape[1:],
            voxel_size,
            np.asarray(sample["mirror_transform"]),
        )
        entry: dict[str, Any] = {"subject": case, "mirror_transform": mirror_transform.tolist()}
        for key, item in COHORT.items():
            file = Path(case) / f"{case}_{key}.nii.gz"
            volume = MetaTensor(convert_to_tensor(sample[item], track_meta=False)[:1].float(), affine=affine)
            save_volume(volume, output_dir / file, np.int16 if key == "label" else np.float32)
            entry[key] = str(file)
        entries.append(entry)
    datalist = output_dir / "datalist.json"
    write_whole(datalist, json.dumps({"test": entries}, indent=1))
    return datalist
