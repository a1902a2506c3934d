"""``una bids``: derivatives by the BIDS names, which the validator takes, and one bad scan that stops no other."""

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scripts.bids_app import derivatives_of

VALIDATOR = shutil.which("bids-validator-deno") or shutil.which(
    "bids-validator-deno", path=os.path.dirname(sys.executable)
)


def test_two_contrasts_of_a_person_never_share_a_name():
    names = [
        name for stem in ("sub-01_T1w", "sub-01_FLAIR", "sub-01_ce-gd_T1w") for name in derivatives_of(stem).values()
    ]
    assert len(names) == len(set(names))
    assert derivatives_of("sub-01_ses-2_T1w")["healthy.nii.gz"] == "sub-01_ses-2_desc-healthy_T1w.nii.gz"
    assert derivatives_of("sub-01_FLAIR")["lesion.nii.gz"] == "sub-01_label-lesion_desc-FLAIR_mask.nii.gz"
    assert derivatives_of("sub-01_T1w")["to_mni.h5"] == "sub-01_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5"


@pytest.fixture(scope="module")
def raw(tmp_path_factory, sample_datalist):
    """Two people, one of them with two contrasts, and a scan that is none."""
    root = tmp_path_factory.mktemp("bids") / "raw"
    scan = nib.load(sample_datalist.parent / "t1.nii.gz")
    thin = scan.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    values = scan.get_fdata()[::2, ::2, ::2].astype(np.float32)
    for name, content in {
        "sub-01/anat/sub-01_T1w": values,
        "sub-02/ses-a/anat/sub-02_ses-a_T1w": values * 3.0,
        "sub-02/ses-a/anat/sub-02_ses-a_FLAIR": np.where(values > 0, 1.5 * values.max() - values, 0.0),
        "sub-03/anat/sub-03_T1w": (values > 0).astype(np.float32),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(content.astype(np.float32), thin)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, root / f"{name}.nii.gz")
    described = {"Name": "made", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0", "Authors": ["A", "B"]}
    (root / "dataset_description.json").write_text(json.dumps(described))
    (root / "README").write_text("Made for a test of UNA: the sample subject, in a few contrasts.\n" * 3)
    return root


def una_bids(*words, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "bids", *map(str, words), "--device", "cpu"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "bundle"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


def test_what_cannot_be_is_one_line(raw, tmp_path):
    wrong = una_bids(raw, tmp_path / "out", "participant", "--participant-label", "09", check=False)
    assert (
        wrong.returncode != 0
        and wrong.stderr.strip().splitlines()[-1].startswith("error:")
        and "sub-09" in wrong.stderr
    )
    wrong = una_bids(tmp_path, tmp_path / "out", "group", check=False)
    assert "no dataset_description.json" in wrong.stderr


@pytest.mark.slow
def test_participants_then_the_group(raw, tmp_path):
    out = tmp_path / "derivatives"
    una_bids(raw, out, "participant", "--participant-label", "02", "--session-label", "a", "--nprocs", "1")
    folder = out / "sub-02/ses-a/anat"
    assert {file.name for file in folder.glob("*.nii.gz")} == {
        name
        for stem in ("sub-02_ses-a_T1w", "sub-02_ses-a_FLAIR")
        for result, name in derivatives_of(stem).items()
        if result in ("healthy.nii.gz", "filled.nii.gz", "anomaly.nii.gz", "lesion.nii.gz", "session_lesion.nii.gz")
    } | {"sub-02_ses-a_desc-sessionanomaly_T1w.nii.gz"}
    assert (out / "sub-02_ses-a_T1w_session.html").is_file()
    about = json.loads((folder / "sub-02_ses-a_label-lesion_desc-FLAIR_mask.json").read_text())
    assert about["Type"] == "Lesion" and about["Sources"] == ["bids:raw:sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz"]
    assert not (out / "sub-01").exists()

    bad = una_bids(raw, out, "participant", "--participant-label", "01", "sub-03", "--nprocs", "2", check=False)
    assert bad.returncode != 0 and "sub-03_T1w" in bad.stderr and (out / "sub-01/anat").is_dir()
    una_bids(raw, out, "group", check=False)
    table = pd.read_csv(out / "lesions.tsv", sep="\t", keep_default_na=False).set_index("scan")
    assert set(table["participant_id"]) == {"sub-01", "sub-02", "sub-03"} and len(table) == 4
    assert table.loc["sub-03/anat/sub-03_T1w.nii.gz", "status"] != "ok"
    assert set(json.loads((out / "lesions.json").read_text())) == {"scan", *table.columns}
    page = (out / "index.html").read_text()
    assert "sub-02_ses-a_T1w_session.html" in page
    assert "sub-01_T1w.html" in page and (out / "sub-01_T1w.html").is_file() and "sub-03_T1w" in page
    for folder in (raw, out):
        if VALIDATOR is None:
            pytest.skip("bids-validator-deno is not installed")
        checked = subprocess.run([VALIDATOR, folder, "--json"], capture_output=True, text=True)
        issues = json.loads(checked.stdout)["issues"]["issues"]
        assert not [issue for issue in issues if issue["severity"] == "error"], issues[:3]
