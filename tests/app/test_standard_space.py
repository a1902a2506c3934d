"""A study in MNI space, as the desk gives it."""

import io
import json
import zipfile

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import requests


def test_an_image_that_is_not_there_is_named(server):
    answer = requests.get(f"{server.url}/mni/nobody", timeout=60)
    assert answer.status_code == 404 and "nobody" in answer.text
    assert requests.get(f"{server.url}/mni/..%2Fsecret", timeout=60).status_code in (400, 404)
    answer = requests.get(f"{server.url}/mni/patient0_t1?modality=pet", timeout=60)
    assert answer.status_code == 422 and "t1, t1c, t2, flair, ct" in answer.text


@pytest.mark.slow
def test_the_lesion_of_the_reader_is_brought_to_mni_space(server, scans, tmp_path):
    scan = nib.load(scans / "studies/patient0_t1.nii.gz")
    values = scan.get_fdata()
    # The reader draws on the patient's right, whichever way the file runs.
    index = np.moveaxis(np.indices(scan.shape), 0, -1)
    right = (index @ scan.affine[:3, :3].T + scan.affine[:3, 3])[..., 0]
    middle = np.median(right[values > 0])
    drawn = ((values > 0) & (right > middle + 20) & (right < middle + 34)).astype(np.uint8)
    other = ((values > 0) & (right < middle - 20)).astype(np.uint8)  # another segment, which is no lesion
    nib.save(nib.Nifti1Image(drawn + 2 * other, scan.affine), tmp_path / "label.nii.gz")
    with (tmp_path / "label.nii.gz").open("rb") as stream:
        requests.put(
            f"{server.url}/datastore/label?image=patient0_t1&tag=final",
            files={"label": stream},
            data={"params": json.dumps({})},
            timeout=60,
        ).raise_for_status()
    answer = requests.get(f"{server.url}/mni/patient0_t1", timeout=400)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "patient0_t1"
    assert {file.name for file in folder.iterdir()} >= {
        f"patient0_t1_{ending}"
        for ending in ("mni.nii.gz", "mni_healthy.nii.gz", "mni_lesion.nii.gz", "to_mni.h5", "from_mni.h5", "mni.png")
    }
    placed = nib.load(folder / "patient0_t1_mni_lesion.nii.gz")
    centre = placed.affine[:3, :3] @ np.argwhere(np.asarray(placed.dataobj) > 0).mean(axis=0) + placed.affine[:3, 3]
    assert 15.0 < centre[0] < 45.0
    loads = pd.read_csv(folder / "regions.csv")
    hit = loads[loads["lesion_ml"] > 0]
    assert hit.groupby("side")["lesion_ml"].sum().idxmax() == "right"
    record = json.loads((folder / "patient0_t1_mni.json").read_text())
    assert record["lesion_ml"] == pytest.approx(drawn.sum() * np.prod(scan.header.get_zooms()) / 1000.0, rel=1e-3)
    assert record["registered"] == "filled"
    requests.delete(f"{server.url}/datastore/label?id=patient0_t1&tag=final", timeout=60).raise_for_status()
