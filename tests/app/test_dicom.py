"""DICOM round trips: as files, and through a real Orthanc."""

import shutil
import subprocess
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
import torch
from conftest import ROOT
from lib.dicom import derived_series, write_series
from monai.data import ITKReader, MetaTensor
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from scripts.volumes import read_volume

from app.running import free_port


@pytest.fixture(scope="module")
def scan() -> MetaTensor:
    """An oblique grid of unequal voxels, every voxel with a value of its own."""
    shape = (20, 24, 18)
    values = torch.arange(np.prod(shape), dtype=torch.float32).reshape(1, *shape) / 8640
    turn = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.5, 1.2, 3.0])
    affine[:3, 3] = [-12.0, 34.0, -5.0]
    return MetaTensor(values, affine=affine)


def read_series(files) -> MetaTensor:
    series = itk.imread([str(file) for file in files], itk.F)
    values, meta = ITKReader().get_data(series)
    return MetaTensor(torch.as_tensor(values)[None], affine=torch.as_tensor(meta["affine"]))


def at_world(volume: MetaTensor, points: np.ndarray) -> np.ndarray:
    voxels = np.linalg.inv(np.asarray(volume.affine)) @ np.c_[points, np.ones(len(points))].T
    np.testing.assert_allclose(voxels, np.round(voxels), atol=1e-2)
    return np.asarray(volume[0])[tuple(np.round(voxels[:3]).astype(int))]


def test_a_series_lies_where_the_volume_lay(scan, tmp_path):
    back = read_series(write_series(scan, tmp_path, "ANY", "any"))
    indices = np.argwhere(np.ones(scan.shape[1:]))
    points = indices @ np.asarray(scan.affine)[:3, :3].T + np.asarray(scan.affine)[:3, 3]
    np.testing.assert_allclose(at_world(back, points), 1000 * np.asarray(scan[0])[tuple(indices.T)], atol=0.51)


def test_a_derived_series_lies_on_its_scan_and_refers_to_it(scan, tmp_path):
    sources = [pydicom.dcmread(file) for file in write_series(scan, tmp_path / "scan", "ANY", "any")]
    private = {
        "OperatorsName": "Nurse^A",
        "InstitutionName": "Clinic",
        "InstitutionAddress": "Street 1",
        "StationName": "MR1",
    }
    private |= {
        "OtherPatientIDs": "42",
        "PatientComments": "said",
        "PatientAddress": "Home 2",
        "PhysiciansOfRecord": "Dr^B",
    }
    private |= {
        "PatientTelephoneNumbers": "555",
        "DeviceSerialNumber": "77",
        "ImageComments": "moved",
        "ProtocolName": "brain A",
    }
    for source in sources:
        for keyword, value in private.items():
            setattr(source, keyword, value)
    instances = derived_series(sources[::-1], scan * 500, "healthy T1w", same_scale=True)
    assert not [keyword for instance in instances for keyword in private if keyword in instance]
    (tmp_path / "derived").mkdir()
    for number, instance in enumerate(instances):
        instance.save_as(tmp_path / "derived" / f"{number}.dcm", write_like_original=False)
    derived, source = (
        read_series(sorted(folder.glob("*.dcm"), key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2])))
        for folder in (tmp_path / "derived", tmp_path / "scan")
    )
    np.testing.assert_allclose(derived.affine, source.affine, atol=1e-4)
    np.testing.assert_allclose(derived, 0.5 * source, atol=1.01)
    first, scan_first = instances[0], sources[-1]
    assert first.SourceImageSequence[0].ReferencedSOPInstanceUID == scan_first.SOPInstanceUID
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "ImagePositionPatient", "WindowWidth"):
        assert first[keyword].value == scan_first[keyword].value
    assert first.SeriesInstanceUID != scan_first.SeriesInstanceUID and first.ImageType[0] == "DERIVED"
    assert len({instance.SOPInstanceUID for instance in instances}) == len(sources)


def test_the_desk_says_how_to_install_what_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "monailabel_app/desk.py", "start", "--folder", tmp_path],
        env={"PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "error: " in done.stderr and "install" in done.stderr


@pytest.fixture(scope="module")
def desk(scans, tmp_path_factory):
    """Orthanc and MONAI Label with one of the scans as DICOM; Orthanc's address, MONAI Label's, and the NIfTI scan."""
    if not (Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").is_file() and shutil.which("Orthanc")):
        pytest.skip("Orthanc is not installed (apt-get install orthanc orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("desk")
    scan = scans / "studies/patient1_t1.nii.gz"
    write_series(read_volume(scan), folder / "study", "TEST", "A scan")
    orthanc, monailabel = free_port(), free_port()
    program = [sys.executable, ROOT / "monailabel_app/desk.py"]
    ports = ["--orthanc_port", str(orthanc), "--port", str(monailabel)]
    started = subprocess.run(
        [*program, "start", "--folder", folder / "run", "--study", folder / "study", *ports],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert started.returncode == 0, started.stderr
    assert f"http://127.0.0.1:{monailabel}/ohif/" in started.stdout
    yield f"http://127.0.0.1:{orthanc}", f"http://127.0.0.1:{monailabel}", scan
    subprocess.run([*program, "stop", "--folder", folder / "run"], check=True, timeout=60)
    for port in (orthanc, monailabel):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/", timeout=5)


def series_of(orthanc: str) -> dict[str, dict]:
    found = [
        requests.get(f"{orthanc}/series/{name}", timeout=30).json() for name in requests.get(f"{orthanc}/series").json()
    ]
    return {entry["MainDicomTags"]["SeriesInstanceUID"]: entry for entry in found}


def download(orthanc: str, series: dict, folder: Path) -> list[Path]:
    folder.mkdir()
    files = []
    for number, instance in enumerate(series["Instances"]):
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(requests.get(f"{orthanc}/instances/{instance}/file", timeout=30).content)
    return files


@pytest.mark.slow
def test_a_result_comes_back_from_the_archive_where_it_was_found(desk, tmp_path):
    orthanc, address, scan_file = desk
    client = MONAILabelClient(address, tmpdir=str(tmp_path))
    (uid,) = series_of(orthanc)
    assert client.next_sample("random", {})["id"] == uid
    scan = nib.load(scan_file)
    world = np.argwhere(np.ones(scan.shape)) @ scan.affine[:3, :3].T + scan.affine[:3, 3]

    healthy, said = client.infer("una_healthy", uid, {})
    derived = series_of(orthanc)[said["series"]]
    assert derived["MainDicomTags"]["SeriesDescription"] == "UNA healthy T1w (una 0)"
    again = client.infer("una_healthy", uid, {})[1]["series"]
    assert again == said["series"] and len(series_of(orthanc)) == 2
    files = download(orthanc, derived, tmp_path / "healthy")
    files.sort(key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
    result = read_volume(healthy)
    np.testing.assert_allclose(at_world(read_series(files), world), at_world(result, world), atol=0.51)
    # Side by side in one window, what is healthy looks the same.
    original, reconstructed = (at_world(volume, world) for volume in (read_volume(scan_file), result))
    inside = (original > 0.1 * original.max()) & (reconstructed > 0)
    assert 0.9 < np.median(reconstructed[inside] / (1000 * original[inside])) < 1.1
    assert client.next_sample("random", {})["id"] == uid  # what the desk itself made is no scan to read

    mask, _ = client.infer("una_anomaly", uid, {"threshold": 0.3})
    lesion = read_volume(mask)
    assert lesion.sum() > 10
    nothing, _ = client.infer("una_anomaly", uid, {"threshold": 999.0})
    with pytest.raises(MONAILabelClientException, match="422.*empty mask"):
        client.save_label(uid, nothing)
    assert not [s for s in series_of(orthanc).values() if s["MainDicomTags"]["Modality"] == "SEG"]
    info = {"label_info": [{"name": "lesion", "model_name": "una_anomaly"}]}
    client.save_label(uid, mask, params=info)
    (segmentation,) = [s for s in series_of(orthanc).values() if s["MainDicomTags"]["Modality"] == "SEG"]
    (file,) = download(orthanc, segmentation, tmp_path / "seg")
    convert = [Path(sys.executable).parent / "segimage2itkimage", "--inputDICOM", file, "--outputDirectory", tmp_path]
    subprocess.run([*convert, "-t", "nifti"], check=True, capture_output=True)
    back = read_volume(tmp_path / "1.nii.gz")
    cut = np.argwhere(np.asarray(back[0]) > 0) @ np.asarray(back.affine)[:3, :3].T + np.asarray(back.affine)[:3, 3]
    assert len(cut) == int(lesion.sum()) and (at_world(lesion, cut) > 0).all()
    assert client.next_sample("random", {}) == {}  # finished
    label = read_volume(client.download_label(segmentation["MainDicomTags"]["SeriesInstanceUID"], "final"))
    assert int((label == 1).sum()) == len(cut) and (at_world(label, cut) == 1).all()
    with pytest.raises(MONAILabelClientException, match="404"):
        client.download_label(uid, "final")


@pytest.mark.slow  # the same answer is tested without an archive
def test_a_family_that_draws_no_healthy_brain_answers_in_the_archive(desk, tmp_path):
    orthanc, address, _ = desk
    client = MONAILabelClient(address, tmpdir=str(tmp_path))
    before = series_of(orthanc)
    (scan,) = [uid for uid, series in before.items() if series["MainDicomTags"]["SeriesNumber"] == "1"]
    assert next(iter(client.info()["models"])) == "una_anomaly"  # what a viewer offers first
    mask, said = client.infer("patchcore_anomaly", scan, {"threshold": 0.5})
    assert read_volume(mask).sum() > 10
    assert "series" not in said and series_of(orthanc).keys() == before.keys()
