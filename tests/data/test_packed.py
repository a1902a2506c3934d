"""Prepared subjects in one file."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT, bundle_run, config, small
from scripts.data import packed_subjects, write_packed
from scripts.errors import InputError

SETTINGS = {"voxel_size": 6.0}


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    path = tmp_path_factory.mktemp("mask") / "mask.nii.gz"
    values = np.zeros((90, 110, 90), dtype=np.uint8)
    values[50:65, 40:70, 40:60] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def packed(generator, datalist, mask, path):
    parser = generator(datalist=str(datalist))
    sections = {"training": parser.get_parsed_content("subjects")}
    sections["validation"] = parser.get_parsed_content("validation_cache")
    write_packed(path, sections, [mask], SETTINGS)
    return sections, packed_subjects(path, SETTINGS)


def test_subjects_come_back(generator, sample_datalist, mask, tmp_path):
    sections, found = packed(generator, sample_datalist, mask, tmp_path / "subjects.npz")
    for name, key in (("training", "subjects"), ("validation", "validation_cache")):
        assert len(found[key]) == len(sections[name])
        for one, other in zip(sections[name], found[key]):
            assert set(one) == set(other)
            for item, value in one.items():
                if not torch.is_tensor(value):
                    np.testing.assert_array_equal(np.asarray(other[item]), np.asarray(value))
                    continue
                assert other[item].dtype == value.dtype
                np.testing.assert_allclose(other[item].affine, value.affine, atol=1e-9)
                rounded = 0.0 if item == "label" else float(value.max()) / 4095 / 2 + 1e-6
                assert float((other[item] - value).abs().max()) <= rounded
    # What was packed once comes back to the bit.
    again = {"training": found["subjects"], "validation": found["validation_cache"]}
    write_packed(tmp_path / "again.npz", again, [], SETTINGS)
    for one, other in zip(found["subjects"], packed_subjects(tmp_path / "again.npz", SETTINGS)["subjects"]):
        torch.testing.assert_close(one["t1"].as_tensor(), other["t1"].as_tensor(), atol=1e-6, rtol=0)


def test_draws_are_those_of_the_files(generator, sample_datalist, mask, tmp_path):
    _, found = packed(generator, sample_datalist, mask, tmp_path / "subjects.npz")
    own = {"seed": 3, "traced_probability": 1.0}
    plain = generator(datalist=str(sample_datalist), traced_masks=[str(mask)], **own).get_parsed_content("samples")
    here = generator(**(own | found)).get_parsed_content("samples")
    lesions = 0
    for draw in range(6):
        one, other = plain[draw], here[draw]
        assert one["kind"] == other["kind"]
        torch.testing.assert_close(one["anomaly"].as_tensor(), other["anomaly"].as_tensor(), atol=1e-4, rtol=0)
        assert float((one["scan"] - other["scan"]).abs().mean()) < 1e-3
        lesions += float(one["anomaly"].sum()) > 0
    assert lesions >= 3


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (None, SETTINGS, "run packing"),
        (b"no such file", SETTINGS, "damaged or was not written by 'run packing'"),
        ("packed", {"voxel_size": 2.0}, "packed with {'voxel_size': 6.0}, this run asks for {'voxel_size': 2.0}"),
    ],
)
def test_what_cannot_be_used_is_refused(generator, sample_datalist, mask, tmp_path, content, settings, message):
    path = tmp_path / "subjects.npz"
    if content == "packed":
        packed(generator, sample_datalist, mask, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        packed_subjects(path, settings)


WITHOUT = """
import subprocess
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('itk', 'SimpleITK', 'deepbet', 'ants'):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Missing())
sys.path.insert(0, 'bundle')
import runpy
sys.argv[0] = 'monai.bundle'
runpy.run_module('monai.bundle', run_name='__main__')
"""


def test_a_machine_without_itk_trains(sample_datalist, mask, tmp_path):
    masks = {"traced_masks": [str(mask)]}
    bundle_run("run", "packing", *config("train"), *small(datalist=sample_datalist, output_dir=tmp_path, **masks))
    script = tmp_path / "without.py"
    script.write_text(WITHOUT)
    own = small(packed=tmp_path / "subjects.npz", output_dir=tmp_path / "out")
    done = subprocess.run(
        [sys.executable, str(script), "run", "training", *config("train"), *map(str, own)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "model.pt").is_file()
    assert not (tmp_path / "out" / "sample_subject").exists()  # it needs no scan at all
