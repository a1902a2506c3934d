"""What an input path stands for."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scripts.errors import InputError
from scripts.preprocessing import find_subjects
from scripts.volumes import read_volume


def touch(*paths) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write_series(
    folder, description: str, values: np.ndarray, affine: np.ndarray, names, modality="MR", date=""
) -> None:
    """An MR series of one slice a file; `affine` is voxel (column, row, slice) to LPS mm."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    for k, name in enumerate(names):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = FileDataset(str(folder / name), {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = series, study, study
        slice_.StudyDate = date
        slice_.PatientID, slice_.Modality, slice_.SeriesDescription = "pat 7", modality, description
        slice_.InstanceNumber, slice_.SeriesNumber = k + 1, 1
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        slice_.PixelSpacing, slice_.SliceThickness = [float(sizes[1]), float(sizes[0])], float(sizes[2])
        slice_.ImageOrientationPatient = [*(affine[:3, 0] / sizes[0]), *(affine[:3, 1] / sizes[1])]
        slice_.ImagePositionPatient = [float(x) for x in affine[:3] @ [0, 0, k, 1]]
        slice_.Columns, slice_.Rows = values.shape[:2]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PixelData = np.ascontiguousarray(values[:, :, k].T.astype(np.uint16)).tobytes()
        pydicom.dcmwrite(folder / name, slice_, write_like_original=False)


def test_plain_folders(tmp_path):
    touch(
        tmp_path / "anna" / "scan_T1w.nii.gz", tmp_path / "anna" / "deep" / "tra_T2_FLAIR.nii", tmp_path / "notes.txt"
    )
    touch(tmp_path / "bob_t1.nrrd", tmp_path / "bob_t2.mgz", tmp_path / "carl.nii")
    found = {name: {scan.name: scan.modality for scan in scans} for name, scans in find_subjects(tmp_path).items()}
    assert found == {
        "anna": {"scan_T1w": "t1"},
        "anna_deep": {"tra_T2_FLAIR": "flair"},
        "bob": {"bob_t1": "t1", "bob_t2": "t2"},
        "carl": {"carl": None},
    }
    assert [scan.modality for scan in find_subjects(tmp_path / "carl.nii", "ct")["carl"]] == ["ct"]


def test_files_named_by_modality_alone_belong_to_their_folder(tmp_path):
    touch(*(tmp_path / "p1" / f"{name}.nii.gz" for name in ("t1", "flair", "lesion", "aseg")))
    assert {scan.name: scan.modality for scan in find_subjects(tmp_path / "p1")["p1"]} == {
        "t1": "t1",
        "flair": "flair",
        "lesion": "lesion",
        "aseg": "label",
    }


def test_bids(tmp_path):
    touch(tmp_path / "dataset_description.json", tmp_path / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz")
    touch(tmp_path / "sub-01" / "ses-b" / "anat" / "sub-01_ses-b_FLAIR.nii.gz")
    touch(tmp_path / "sub-02" / "func" / "sub-02_bold.nii.gz", tmp_path / "sub-02" / "anat" / "sub-02_T2w.nii")
    touch(tmp_path / "sub-01" / "ses-b" / "anat" / "sub-01_ses-b_ce-gadolinium_T1w.nii.gz")
    touch(tmp_path / "sub-03" / "anat" / "sub-03_acq-t2_T1w.nii.gz")
    found = find_subjects(tmp_path)
    assert {name: [scan.modality for scan in scans] for name, scans in found.items()} == {
        "sub-01_ses-a": ["t1"],
        "sub-01_ses-b": ["flair", "t1c"],
        "sub-02": ["t2"],
        "sub-03": ["t1"],
    }


def test_a_dicom_file_set_becomes_volumes_in_the_right_place(tmp_path):
    # Two series mixed in one folder, the slices in no order of names, oblique.
    angle = np.deg2rad(15.0)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3, :3] *= [2.0, 3.0, 4.0]
    affine[:3, 3] = [-40.0, -50.0, 10.0]
    values = np.random.RandomState(0).randint(0, 900, size=(20, 24, 12))
    names = [f"IM{number:04d}" for number in np.random.RandomState(1).permutation(24)]
    write_series(tmp_path, "t1_mprage", values, affine, names[:12])
    write_series(tmp_path, "T2 dark-fluid", values[::-1], affine, [f"{name}.dcm" for name in names[12:]])
    (tmp_path / "DICOMDIR").write_bytes(b"index")
    (tmp_path / "README").write_text("not an image")
    scans = {scan.modality: scan for scan in find_subjects(tmp_path)["pat-7"]}
    assert set(scans) == {"t1", "flair"}
    volume = read_volume(scans["t1"].path)
    # Voxel by voxel, wherever ITK puts the axes: the same value at the same place.
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    for voxel in ((0, 0, 0), (19, 23, 11), (3, 17, 5)):
        place = np.linalg.inv(np.asarray(volume.affine)) @ to_ras @ [*voxel, 1.0]
        index = tuple(np.round(place[:3]).astype(int))
        assert np.abs(place[:3] - index).max() < 1e-2
        assert float(volume[0][index]) == values[voxel]


def test_studies_of_a_patient_are_sessions_in_the_order_of_their_dates(tmp_path):
    values = np.random.RandomState(0).randint(1, 900, size=(8, 8, 3))
    for name, date in (("a", "20240301"), ("b", "20230115"), ("c", "20251224")):
        write_series(tmp_path / name, f"t2 flair {name}", values, np.eye(4), ["1", "2", "3"], date=date)
    write_series(tmp_path / "a", "t1 a", values, np.eye(4), ["4", "5", "6"], date="20240301")
    (scans,) = find_subjects(tmp_path / "a", None).values()
    assert len({scan.session for scan in scans}) == 2  # the two series have studies of their own here
    folder = tmp_path / "all"
    for name in "abc":
        (folder / name).mkdir(parents=True)
        for file in (tmp_path / name).iterdir():
            if file.name in "123":
                (folder / f"{name}{file.name}").write_bytes(file.read_bytes())
    (scans,) = find_subjects(folder).values()
    found = {scan.name.split("_")[0][-1]: scan.session.rsplit("_", 1)[-1] for scan in scans}
    assert found == {"b": "study1", "a": "study2", "c": "study3"}


def test_nothing_to_find_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(InputError, match="holds no scan"):
        find_subjects(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_subjects(tmp_path / "absent")
    with pytest.raises(InputError, match="no scan given"):
        find_subjects(None)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="modality 'pet' is not known"):
        find_subjects(tmp_path, "pet")


def test_links_to_folders_are_people_and_a_loop_ends(tmp_path, capsys):
    scan = nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4))
    for folder in ("in/own", "archive/other/deep"):
        (tmp_path / folder).mkdir(parents=True)
    nib.save(scan, tmp_path / "in/own/own_T2w.nii.gz")
    nib.save(scan, tmp_path / "archive/other/deep/other_FLAIR.nii.gz")
    (tmp_path / "in/other").symlink_to("../archive/other", target_is_directory=True)
    (tmp_path / "archive/other/back").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/again").symlink_to(tmp_path / "in/own", target_is_directory=True)
    found = find_subjects(tmp_path / "in")
    kinds = {person: [scan.modality for scan in scans] for person, scans in found.items()}
    assert sorted(kind for scans in kinds.values() for kind in scans) == ["flair", "t2"]
    told = capsys.readouterr().out
    assert told.count("is a link to a folder that is read already; it is not followed") == 2
    assert "other/back" in told
    # Results lie below the folder of the link.
    assert all(
        str(file).startswith(str(tmp_path / "in")) for scans in found.values() for scan in scans for file in scan.files
    )


def test_links_in_a_bids_data_set_are_followed(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/dataset_description.json").write_text("{}")
    (tmp_path / "store/anat").mkdir(parents=True)
    scan = nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4))
    nib.save(scan, tmp_path / "store/anat/sub-01_T1w.nii.gz")
    (tmp_path / "set/sub-01").symlink_to(tmp_path / "store", target_is_directory=True)
    assert list(find_subjects(tmp_path / "set")) == ["sub-01"]


def test_what_is_passed_over_is_counted(tmp_path):
    for number in range(3):
        (tmp_path / f"notes{number}.txt").write_text("no image")
    with pytest.raises(InputError, match=r"files passed over: 3 no DICOM file"):
        find_subjects(tmp_path)
