"""The kinds of samples that generator.yaml mixes, from one datalist of every kind of subject."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scripts.data import load_datalist
from scripts.errors import InputError


@pytest.fixture
def datalist(tmp_path, sample_datalist):
    """A healthy subject with T1w and CT, a label map alone, a diseased scan without a label map, and a patient with T1w and T2w."""
    subject = load_datalist(sample_datalist, "training")[0]
    t1 = nib.load(subject["t1"])
    label = np.asarray(nib.load(subject["label"]).dataobj)
    ct = np.select([np.isin(label, [2, 41]), np.isin(label, [3, 42]), label == 24], [27.0, 37.0, 8.0], -1000.0)
    lesion = np.zeros(t1.shape, np.uint8)
    lesion[120:150, 100:130, 90:120] = 1
    nib.save(nib.Nifti1Image(ct.astype(np.float32), t1.affine), tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(lesion, t1.affine), tmp_path / "lesion.nii.gz")
    nib.save(
        nib.Nifti1Image((t1.get_fdata() * (1 - 0.6 * lesion)).astype(np.float32), t1.affine), tmp_path / "sick.nii.gz"
    )
    t2 = (t1.get_fdata() > 0) * (1.2 - t1.get_fdata()) + 0.5 * lesion
    nib.save(nib.Nifti1Image(t2.astype(np.float32), t1.affine), tmp_path / "t2.nii.gz")
    subjects = [
        {"subject": "healthy", "label": subject["label"], "t1": subject["t1"], "ct": "ct.nii.gz"},
        {"subject": "labels", "label": subject["label"]},
        {"subject": "sick", "t1": "sick.nii.gz", "lesion": "lesion.nii.gz"},
        {
            "subject": "pair",
            "label": subject["label"],
            "t1": "sick.nii.gz",
            "t2": "t2.nii.gz",
            "lesion": "lesion.nii.gz",
        },
    ]
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": subjects}))
    return path


def test_every_kind_of_subject_becomes_its_kind_of_sample(generator, datalist, tmp_path):
    parser = generator(
        datalist=str(datalist),
        voxel_size=4.0,
        patch_size=[48, 64, 48],
        shares={"synthetic": 0.4, "real": 0.4, "paired": 0.2},
    )
    dataset = parser.get_parsed_content("samples")
    samples = [dataset[draw] for draw in range(60)]
    kinds = {(sample["subject"], sample["kind"]) for sample in samples}
    scans = {("healthy", "synthetic"), ("labels", "synthetic"), ("healthy", "real"), ("sick", "real")}
    assert kinds == scans | {("pair", "real"), ("pair", "paired")}
    for sample in samples:
        brain, anomaly, healthy = sample["brain"] > 0, sample["anomaly"], sample["healthy"]
        unknown = sample["diseased"] > 0
        assert unknown.any() == (sample["subject"] in ("sick", "pair")) and (anomaly[unknown] > 0).all()
        assert healthy.max() <= 1 and not healthy[~brain].any() and healthy[brain].mean() > 0.2
        assert sample["scan"].min() >= 0 and 0.8 <= sample["scan"].max() <= 1
        if sample["kind"] == "real":
            assert not sample["scan"][~brain].any()
        if sample["subject"] == "sick":
            volume = float((anomaly > 0.5).sum()) * 4**3 / 27000  # of the traced lesion, scaled by up to 20 % an axis
            assert 0.3 < volume < 2.0
            darker = healthy[(anomaly > 0.9)].mean() / healthy[brain & (anomaly < 0.1)].mean()
            assert darker < 0.7  # the target still shows the disease, and must not be learned from inside
        if sample["kind"] == "paired":  # the scan is the T2w, whose truth is known in the painted lesion
            inside = brain & (anomaly < 0.01)
            assert torch.corrcoef(torch.stack([sample["scan"][inside], healthy[inside]]))[0, 1] < 0.0
    painted = [((s["anomaly"] > 0.2) & ~(s["diseased"] > 0)).sum() for s in samples if s["kind"] == "paired"]
    assert max(painted) > 50


def test_lesions_on_another_grid_are_refused(generator, datalist, tmp_path):
    content = json.loads(datalist.read_text())
    lesion = nib.load(tmp_path / "lesion.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(lesion.dataobj)[:-3], lesion.affine), tmp_path / "cut.nii.gz")
    content["training"][2]["lesion"] = "cut.nii.gz"
    datalist.write_text(json.dumps(content))
    parser = generator(datalist=str(datalist))
    subjects = parser.get_parsed_content("subjects")
    assert "sick" not in [entry["subject"] for entry in subjects.data]
    with pytest.raises(InputError, match=r"1 subjects could not be used: sick: .*cut.nii.gz .* different grids"):
        subjects.finish()
