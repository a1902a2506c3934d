"""Real label maps and traced masks through the whole generator (needs the data beside the project)."""

import json

import numpy as np
import pytest
from monai.transforms import Orientation
from scipy.ndimage import binary_erosion
from scripts.config import from_config
from scripts.data import CropToBraind, ReadVolumesd
from scripts.fluid import RandFluidAnomaly, divergence, random_diffusivity, random_velocity, simulate, traced_seed
from scripts.methods import Guest
from scripts.volumes import on_grid, read_volume


@pytest.fixture(scope="module")
def brain(shared_data):
    """Brain of a real label map at 1 mm, ``(1, X, Y, Z)``."""
    volume = ReadVolumesd("label")({"label": str(shared_data / "label_maps/training_seg_01.nii.gz")})["label"]
    mask = ((volume > 0) & (volume < 256)).float()
    return Orientation("RAS", labels=None)(CropToBraind("brain")({"brain": mask})["brain"])


@pytest.mark.parametrize("name", ["Subject_012", "Subject_038", "Subject_069"])
def test_invariants_on_a_real_brain_with_traced_masks(brain, shared_data, name):
    domain = brain.as_tensor()[0] > 0
    p0 = traced_seed(shared_data / f"lesion_masks/{name}.nii.gz", brain)
    assert p0.sum() > 1000
    state = np.random.RandomState(0)
    velocity = random_velocity(state, domain, 100.0, 500.0, 20.0)
    speed = max(float(v.abs().max()) for v in velocity)
    assert divergence(velocity).abs().max() < 1e-5 * speed
    trajectory = simulate(p0, domain, velocity, random_diffusivity(state, domain, 100.0, 1.0), [0.0, 0.9])
    mass = trajectory.double().sum(dim=(1, 2, 3))
    assert abs(mass[1] / mass[0] - 1) < 1e-5
    assert trajectory.min() >= -1e-3 and trajectory.max() <= 1 + 1e-3
    assert not trajectory[:, ~domain].any()
    before, after = trajectory[0] > 0.2, trajectory[1] > 0.2
    overlap = 2.0 * (before & after).sum() / (before.sum() + after.sum())
    assert 0.2 < overlap < 0.95  # another lesion, of the same kind


def test_a_lesion_of_the_white_matter_stays_there(shared_data, labels):
    volume = ReadVolumesd("label")({"label": str(shared_data / "paired_t1_labels/bert_aseg.mgz")})["label"]
    label = labels.clean(Orientation("RAS", labels=None)(volume))
    white = labels.mask(label, "white_matter").float()
    anomaly = RandFluidAnomaly(cell_size=100.0).set_random_state(2)(white)
    assert anomaly.max() > 0.2 and not anomaly[white == 0].any()


@pytest.mark.parametrize("folder", ["label_maps", "label_maps_brain", "paired_t1_labels"])
def test_the_generator_takes_real_subjects(shared_data, tmp_path, folder, generator):
    if folder == "paired_t1_labels":
        subjects = [
            {"label": str(shared_data / folder / "bert_aseg.mgz"), "t1": str(shared_data / folder / "bert_brain.mgz")}
        ]
    else:
        subjects = [{"label": str(path)} for path in sorted((shared_data / folder).glob("*.nii.gz"))[:2]]
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"training": subjects, "validation": subjects}))
    masks = sorted(str(path) for path in (shared_data / "lesion_masks").glob("*.nii.gz"))[:5]
    masks += sorted(str(path) for path in (shared_data / "lesion_masks_acute").glob("*.nii.gz"))[:5]
    if folder == "label_maps_brain":
        masks = []  # their world is not near that of the masks, which would miss the brain
    dataset = generator(
        datalist=str(datalist), voxel_size=3.0, patch_size=[64, 80, 64], traced_masks=masks
    ).get_parsed_content("samples")
    lesions = 0
    for draw in range(6):
        sample = dataset[draw]
        brain, anomaly = sample["brain"] > 0, sample["anomaly"]
        assert 0.5e6 < brain.sum() * 27 < 3.2e6  # mm^3, scaled by up to 20 % along each axis
        assert 0 <= sample["scan"].min() and 0.8 <= sample["scan"].max() <= 1
        assert not anomaly[~brain].any() and anomaly.max() <= 1 + 1e-3
        healthy = sample["healthy"]
        assert healthy[brain].mean() > 0.2 and not healthy[~brain].any()
        both = brain & (sample["mirrored"] > 0)
        assert both.sum() > 0.75 * brain.sum()  # the partner lies on the brain
        lesions += bool((anomaly > 0.2).any())
    assert lesions >= 4


def test_the_healthy_t1w_of_a_real_t2w_has_its_detail(shared_data):
    folder = shared_data / "ms_mni_patient07"
    case = from_config("evaluation.yaml", "preparation", {})(
        {"image": str(folder / "t2.nii.gz"), "modality": "t2", "subject": "x"}
    )
    case |= Guest("una", {})(case)
    grid = case["original"]
    real = on_grid(read_volume(folder / "t1.nii.gz"), grid).numpy()[0].astype(float)
    inside = binary_erosion(on_grid(case["brain"], grid).numpy()[0] > 0.5, iterations=2)

    def steepness(values: np.ndarray) -> float:
        return np.linalg.norm(np.gradient(values), axis=0)[inside].mean()

    errors, shares = [], []
    for drawn in (on_grid(case["pred_healthy"], grid), from_config("inference.yaml", "fine", {})(case)["pred_healthy"]):
        values = drawn.numpy()[0].astype(float)
        slope, shift = np.polyfit(values[inside], real[inside], 1)
        fitted = slope * values + shift
        errors.append(np.sqrt(((fitted - real)[inside] ** 2).mean()))
        shares.append(steepness(fitted) / steepness(real))
    # It is sharper, and it is nearer to the T1w of the same person.
    assert shares[0] + 0.05 < shares[1] < 1.0, shares
    assert errors[1] < errors[0], errors
