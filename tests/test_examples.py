"""The examples do what their first lines say."""

import importlib.util
import subprocess
import sys

import nibabel as nib
import pandas as pd
import pytest
from conftest import ROOT, bundle_environment, dice

EXAMPLES = ROOT / "examples"


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_network_learns_random_lesions():
    losses = loaded(EXAMPLES / "train_with_anomalies.py").train(steps=12)
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


@pytest.mark.slow
def test_a_method_of_ones_own_is_compared(tmp_path):
    page = loaded(EXAMPLES / "add_a_method/compare.py").compare(tmp_path, "--voxel_size", "4.0")
    assert "local contrast" in page.read_text()
    table = pd.read_csv(tmp_path / "summary.csv").set_index("method")
    assert set(table.index) == {"intensity", "contralateral", "local_contrast"}
    assert table.loc["local_contrast", "auprc"] > 0


@pytest.mark.slow
def test_lesions_are_found_in_a_folder(sample_datalist, tmp_path):
    scan = nib.load(sample_datalist.parent / "t1.nii.gz")
    values = scan.get_fdata()
    hole = (slice(60, 85), slice(90, 120), slice(80, 105))
    values[hole] *= 0.3
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(values.astype("float32"), scan.affine), tmp_path / "scans/p1_T1w.nii.gz")
    command = [sys.executable, str(EXAMPLES / "find_lesions.py"), str(tmp_path / "scans"), str(tmp_path / "found")]
    done = subprocess.run(
        command, cwd=ROOT, env=bundle_environment(), capture_output=True, text=True, timeout=600, check=True
    )
    assert "(t1): " in done.stdout and "p1_T1w" in done.stdout
    found = nib.load(tmp_path / "found/p1_T1w_lesion.nii.gz").get_fdata()
    true = values * 0
    true[hole] = 1
    assert dice(found, true) > 0.3
