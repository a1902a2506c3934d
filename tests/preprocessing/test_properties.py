"""Whatever is odd about a series, a header or a datalist: the right volume, or a refusal that names it, never another volume."""

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scripts.data import find_scans
from scripts.errors import InputError
from scripts.modalities import MODALITIES, modality_of
from scripts.volumes import read_volume

EVERY_DAY, SLOW = 20, 200
SHAPE = (10, 9, 14)  # columns, rows, slices
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def quietly(draws: int) -> settings:
    return settings(max_examples=draws, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def volume_of(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(1, 1000, SHAPE).astype(np.int16)


def geometry(turn: float, spacing: float, tilt: float) -> np.ndarray:
    """Affine in DICOM's LPS: turned in the plane, and sheared as a gantry does."""
    c, s = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, :2] = np.array([[c, -s], [s, c], [0, 0]]) * 1.5
    affine[:3, 2] = [0.0, tilt * spacing, spacing]
    affine[:3, 3] = [-12.0, 20.0, -31.0]
    return affine


def image(volume: np.ndarray, affine: np.ndarray, number: int, series: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.PatientID, ds.Modality, ds.SeriesDescription, ds.EchoTime = "P", "MR", "T2 TSE", "90"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", series
    ds.InstanceNumber, ds.Rows, ds.Columns = number + 1, volume.shape[1], volume.shape[0]
    directions = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    ds.PixelSpacing = [1.5, 1.5]
    ds.ImageOrientationPatient = [f"{x:.8f}" for x in directions.T.ravel()]
    ds.ImagePositionPatient = [f"{x:.5f}" for x in affine[:3, 3] + affine[:3, 2] * number]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelData = np.ascontiguousarray(volume[:, :, number].T).tobytes()
    return ds


# A defect changes the images of a sound series, and returns them. What must still be read whole stands in HARMLESS.


def jittered_cosines(images, random):
    for ds in images:
        values = np.array(ds.ImageOrientationPatient, dtype=float) + random.uniform(-1, 1, 6) * 1e-6
        ds.ImageOrientationPatient = [f"{x:.8f}" for x in values]
    return images


def drifting_echo(images, random):
    for number, ds in enumerate(images):
        ds.EchoTime = f"{90 + 0.002 * number:.3f}"
    return images


def spelt_echo(images, random):
    for ds in images:
        ds.EchoTime = str(random.choice(["90", "90.0", "90.00", "9.0E1"]))
    return images


def tag_missing_here_and_there(images, random):
    keyword = str(random.choice(["EchoTime", "InstanceNumber", "SeriesDescription", "PatientID"]))
    for ds in images[1:]:
        if random.rand() < 0.4:
            delattr(ds, keyword)
    return images


def empty_tags(images, random):
    for ds in images:
        for keyword in ("EchoTime", "FlipAngle", "SliceThickness", "InstanceNumber"):
            setattr(ds, keyword, "")
    return images


def no_modality(images, random):
    for ds in images:
        del ds.Modality
    return images


def shuffled_numbers(images, random):
    for ds, number in zip(images, random.permutation(len(images))):
        ds.InstanceNumber = int(number) + 1
    return images


def copies(images, random):
    return images + [images[n] for n in random.choice(len(images), 3, replace=False)]


def one_uid_for_all(images, random):
    for ds in images:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    return images


def stray_capture(images, random):
    stray = image(volume_of(7), geometry(0.0, 3.0, 0.0), 0, images[0].SeriesInstanceUID)
    stray.ImageOrientationPatient = ""
    return [*images, stray]


def missing_slices(images, random):
    gone = random.choice(np.arange(2, len(images) - 2), 2, replace=False)
    return [ds for number, ds in enumerate(images) if number not in gone]


def repeated_places(images, random):
    for number in random.choice(len(images), 3, replace=False):
        again = image(volume_of(9), geometry(0.0, 3.0, 0.0), int(number), images[0].SeriesInstanceUID)
        again.ImagePositionPatient, again.ImageOrientationPatient = (
            images[number].ImagePositionPatient,
            images[number].ImageOrientationPatient,
        )
        images = [*images, again]
    return images


def two_contrasts_in_one_stack(images, random):
    for ds in images[::2]:
        ds.EchoTime = "20"
    return images


def shifted_half(images, random):
    for ds in images[len(images) // 2 :]:
        ds.ImagePositionPatient = [ds.ImagePositionPatient[0] + 15.0, *ds.ImagePositionPatient[1:]]
    return images


def other_orientation_in_a_third(images, random):
    for ds in images[::3]:
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return images


def no_positions(images, random):
    for ds in images:
        del ds.ImagePositionPatient
    return images


def colour(images, random):
    for ds in images:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.PixelData = random.randint(0, 255, (ds.Rows, ds.Columns, 3), dtype=np.uint8).tobytes()
    return images


def other_slopes(images, random):
    for number, ds in enumerate(images):
        stored = np.frombuffer(ds.PixelData, dtype=np.int16)
        slope = 2.0 if number % 2 else 1.0
        ds.PixelData = (stored / slope).round().astype(np.int16).tobytes()
        ds.RescaleSlope, ds.RescaleIntercept = slope, 0
    return images


HARMLESS = [
    jittered_cosines,
    drifting_echo,
    spelt_echo,
    tag_missing_here_and_there,
    empty_tags,
    no_modality,
    shuffled_numbers,
]
HARMLESS += [copies, one_uid_for_all, stray_capture, other_slopes]
HARMFUL = [missing_slices, repeated_places, two_contrasts_in_one_stack, shifted_half, other_orientation_in_a_third]
HARMFUL += [no_positions, colour]


def write_series(images, folder: Path, random, preamble: bool, ending: str) -> None:
    for number, place in enumerate(random.permutation(len(images))):
        ds = images[place]
        ds.is_little_endian, ds.is_implicit_VR = True, False
        path = folder / f"IM{number:04d}{ending}"
        ds.save_as(path, write_like_original=False)
        if not preamble:
            path.write_bytes(path.read_bytes()[132:])


def sampled(volume, affine_lps: np.ndarray) -> np.ndarray:
    """The values of a read volume at the voxels of the series, by their places."""
    to_voxel = np.linalg.inv(np.asarray(volume.affine, dtype=np.float64)) @ LPS @ affine_lps
    index = np.indices(SHAPE).reshape(3, -1)
    voxels = np.round(to_voxel[:3, :3] @ index + to_voxel[:3, 3:]).astype(int)
    assert (voxels >= 0).all() and (voxels.T < np.array(volume.shape[1:])).all()
    return np.asarray(volume[0])[tuple(voxels)].reshape(SHAPE)


def check_series(seed, defects, turn, spacing, tilt, preamble, ending):
    random = np.random.RandomState(seed)
    truth, affine = volume_of(seed), geometry(turn, spacing, tilt)
    images = [image(truth, affine, number, "1.9.9") for number in range(SHAPE[2])]
    for defect in sorted(defects, key=lambda defect: defect in (stray_capture, copies)):  # what adds images comes last
        images = defect(images, random)
    harmless = all(defect in HARMLESS for defect in defects)
    with tempfile.TemporaryDirectory() as folder:
        write_series(images, Path(folder), random, preamble, ending)
        try:
            scans = find_scans(folder)
        except InputError as error:
            assert not harmless, error
            return
        sound = [scan for scan in scans if not scan.get("problem")]
        if not harmless:
            assert all(len(scan["problem"]) > 20 for scan in scans if scan.get("problem"))
        else:
            assert len(sound) == len(scans) == 1, [scan.get("problem") for scan in scans]
        for scan in sound:
            try:
                volume = read_volume(scan["image"])
            except InputError:
                assert not harmless
                continue
            assert volume.shape[3] == SHAPE[2]
            tolerance = 1.0 if other_slopes in defects else 0.0
            assert np.abs(sampled(volume, affine) - truth).max() <= tolerance


SERIES = {
    "seed": st.integers(0, 2**16),
    "turn": st.sampled_from([0.0, 0.125, -0.7]),
    "spacing": st.sampled_from([0.9, 3.0, 5.5]),
    "tilt": st.sampled_from([0.0, 0.25]),
    "preamble": st.booleans(),
    "ending": st.sampled_from([".dcm", "", ".1"]),
}
HARMLESS_DEFECTS = st.lists(st.sampled_from(HARMLESS), max_size=3, unique=True)
SOME_DEFECTS = st.tuples(st.sampled_from(HARMFUL), HARMLESS_DEFECTS).map(lambda both: [*both[1], both[0]])


@quietly(EVERY_DAY)
@given(defects=HARMLESS_DEFECTS, **SERIES)
def test_a_series_with_harmless_oddities_is_read_whole(**drawn):
    check_series(**drawn)


@quietly(EVERY_DAY)
@given(defects=SOME_DEFECTS, **SERIES)
def test_a_spoilt_series_is_refused_or_right(**drawn):
    check_series(**drawn)


@pytest.mark.slow
@quietly(SLOW)
@given(defects=st.one_of(HARMLESS_DEFECTS, SOME_DEFECTS), **SERIES)
def test_many_series(**drawn):
    check_series(**drawn)


# ---------------------------------------------------------------- NIfTI headers


def check_header(seed, forms, units, turn, dtype, slope, four):
    """A NIfTI file of any header is read with its values at their places, or refused."""
    random = np.random.RandomState(seed)
    values = random.randint(0, 120, (9, 10, 11)).astype(dtype)
    affine = np.diag([1.5, -2.0, 1.0, 1.0])
    c, s = np.cos(turn), np.sin(turn)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = [10.0, -5.0, 3.0]
    made = nib.Nifti1Image(values[..., None] if four else values, affine)
    made.set_qform(affine if forms != "none" else None, 1 if forms in ("qform", "both") else 0)
    made.set_sform(affine if forms != "none" else None, 1 if forms in ("sform", "both") else 0)
    if units:
        made.header.set_xyzt_units(units)
    made.header.set_slope_inter(slope, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan_T1w.nii.gz"
        nib.save(made, path)
        try:
            volume = read_volume(path)
        except InputError as error:
            assert forms == "none", error
            return
        assert forms != "none"
        np.testing.assert_allclose(np.asarray(volume.affine), affine, atol=1e-4)
        np.testing.assert_allclose(np.asarray(volume[0]), nib.load(path).get_fdata().reshape(9, 10, 11), atol=1e-3)


HEADERS = {
    "seed": st.integers(0, 2**16),
    "forms": st.sampled_from(["qform", "sform", "both", "none"]),
    "units": st.sampled_from([None, "mm", "meter", "micron"]),
    "turn": st.floats(-3.0, 3.0),
    "dtype": st.sampled_from(["uint8", "int16", "float32", "float64"]),
    "slope": st.sampled_from([1.0, 0.5, 2.0]),
    "four": st.booleans(),
}


@quietly(EVERY_DAY)
@given(**HEADERS)
def test_headers(**drawn):
    check_header(**drawn)


@pytest.mark.slow
@quietly(SLOW)
@given(**HEADERS)
def test_many_headers(**drawn):
    check_header(**drawn)


# ---------------------------------------------------------------- datalists

SPELLINGS = {"t1": ["T1", "T1w", "t1w", "t1"], "t2": ["T2", "T2w", "T2W"], "flair": ["FLAIR", "Flair", "T2-FLAIR"]}
SPELLINGS |= {"ct": ["CT", "Ct"], "t1c": ["T1c", "T1CE", "t1-gd"]}


SCANS = st.tuples(st.integers(0, 3), st.sampled_from([*MODALITIES, None]), st.integers(0, 3), st.integers(0, 1))


@quietly(4 * EVERY_DAY)
@given(
    entries=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([*MODALITIES, None]), st.integers(0, 3), st.integers(0, 1)),
        min_size=1,
        max_size=8,
    )
)
def test_scans_of_a_datalist_have_names_of_their_own_and_people(entries):
    with tempfile.TemporaryDirectory() as folder:
        listed = []
        for number, (person, modality, spelling, place) in enumerate(entries):
            file = Path(folder) / f"f{place}" / f"scan{number % 3}_{number // 3}.nii.gz"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(f"{number}".encode())
            spelt = None if modality is None else SPELLINGS[modality][spelling % len(SPELLINGS[modality])]
            listed.append(
                {
                    "subject": f"p{person}",
                    "image": str(file.relative_to(folder)),
                    **({"modality": spelt} if spelt else {}),
                }
            )
        (Path(folder) / "list.json").write_text(json.dumps({"test": listed}))
        scans = find_scans(Path(folder) / "list.json")
        assert len({scan["subject"] for scan in scans}) == len(scans) == len(entries)
        assert [scan["person"] for scan in scans] == [f"p{person}" for person, *_ in entries]
        assert [scan["modality"] for scan in scans] == [modality for _, modality, *_ in entries]
        outputs = {str(scan.get("output_name", Path(scan["image"]).name)).rsplit("/", 1)[-1] for scan in scans}
        assert len(outputs) == len(scans)


@pytest.mark.parametrize("text", ["pet", "T3", "", "t1t2", "dwi"])
def test_a_modality_that_is_not_known_is_refused(text):
    with pytest.raises(InputError, match="t1, t1c, t2, flair, ct"):
        modality_of(text)
