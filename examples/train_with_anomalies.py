"""Train a segmentation network on random lesions, with the project's transforms in a plain MONAI pipeline.

The one subject is the ICBM template, which comes with a package. Put files of your own into `subjects`.
"""

import sys
import tempfile
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, Lambdad, LoadImaged, ResizeWithPadOrCropd, Spacingd
from monai.utils import set_determinism

sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))  # or: pip install . and `from una.fluid import ...`

from scripts.data import write_sample_subject
from scripts.fluid import RandFluidAnomalyd


def paint(data: dict) -> dict:
    """Make the lesion brighter or darker than what was there."""
    sign = 1.0 if torch.rand(()) > 0.5 else -1.0
    data["image"] = data["image"] * (1.0 + 0.5 * sign * data["anomaly"])
    data["mask"] = (data["anomaly"] > 0.2).float()
    return data


def train(steps: int = 30) -> list[float]:
    """The loss of every step."""
    set_determinism(0)
    folder = Path(tempfile.mkdtemp())
    write_sample_subject(folder)
    subjects = [{"image": str(folder / "t1.nii.gz"), "brain": str(folder / "label.nii.gz")}] * steps
    voxel = 4.0  # mm
    transforms = Compose(
        [
            LoadImaged(keys=["image", "brain"], ensure_channel_first=True),
            Spacingd(keys=["image", "brain"], pixdim=[voxel] * 3, mode=["bilinear", "nearest"]),
            ResizeWithPadOrCropd(keys=["image", "brain"], spatial_size=[48, 48, 48]),
            Lambdad(keys="brain", func=lambda label: (label > 0).float()),
            Lambdad(keys="image", func=lambda image: image / image.max()),
            # Lengths are in voxels: the defaults are the paper's, for 1 mm.
            RandFluidAnomalyd(
                keys="brain",
                cell_size=100.0 / voxel,
                velocity_scale=500.0 / voxel**2,
                diffusivity_scale=1.0 / voxel**2,
                taper=20.0 / voxel,
            ),
            paint,
        ]
    )
    network, loss = BasicUNet(3, 1, 1, features=(8, 8, 16, 16, 16, 8)), DiceCELoss(sigmoid=True)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for batch in DataLoader(Dataset(subjects, transforms), batch_size=1):
        optimizer.zero_grad()
        value = loss(network(batch["image"].as_tensor()), batch["mask"].as_tensor())
        value.backward()
        optimizer.step()
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    losses = train()
    print(f"loss of the first five steps {sum(losses[:5]) / 5:.3f}, of the last five {sum(losses[-5:]) / 5:.3f}")
