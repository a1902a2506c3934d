"""DICOM in and out: a volume as a series of its own, a result as a series derived from the scan, and the DICOMweb store."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.data import MetaTensor
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom_seg.writer_utils import import_hierarchy
from scripts.errors import InputError
from scripts.preprocessing.coregister import LPS
from scripts.volumes import read_volume

__all__ = ["DeskStore", "derived_series", "write_series"]

SCANS = ("MR", "CT")
OWN = "UNA "  # with which the description of a derived series begins
GRAY_LEVELS = 4095
# Of what pydicom-seg, after DCMTK, copies for a series of the same study: this one was not made by the scanner.
SCANNER = ("Manufacturer", "InstitutionName", "InstitutionAddress", "StationName", "InstitutionalDepartmentName")
SCANNER += ("ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
GEOMETRY += ("SliceLocation", "InstanceNumber", "PatientPosition")


class DeskStore(DICOMWebDatastore):
    """MONAI Label's DICOMweb store with scans alone: it lists derived series and segmentations as scans when it lists MR, and it
    remembers its lists for two hours, so that a finished scan is offered again."""

    def list_images(self) -> list[str]:
        found = [Dataset.from_json(entry) for entry in self._client.search_for_series(fields=["SeriesDescription"])]
        return [
            str(series.SeriesInstanceUID)
            for series in found
            if series.get("Modality") in SCANS and not str(series.get("SeriesDescription", "")).startswith(OWN)
        ]

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return DICOMWebDatastore.get_labeled_images.__wrapped__(self, label_tag, labels)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """MONAI Label's, which fails when it is not told the scan, as by its own endpoint for a label.

        Raises:
            ValueError: when the series is no segmentation of a scan.
        """
        if label_tag == DefaultLabelTag.FINAL and not image_id:
            image_id = self._scan_of(label_id)
        return super().get_label_uri(label_id, label_tag, image_id)

    def _scan_of(self, segmentation: str) -> str:
        for entry in self._client.search_for_series(search_filters={"SeriesInstanceUID": segmentation}):
            study = str(Dataset.from_json(entry).StudyInstanceUID)
            instance = Dataset.from_json(self._client.retrieve_series_metadata(study, segmentation)[0])
            if "ReferencedSeriesSequence" in instance:
                return str(instance.ReferencedSeriesSequence[0].SeriesInstanceUID)
        raise ValueError(f"{segmentation} is no segmentation of a scan")

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """MONAI Label's, which fails half way through with a mask that DICOM cannot hold.

        Raises:
            InputError: when a final label has no voxel.
        """
        name = str(label_filename)
        empty = not any(Path(name).read_bytes()) if name.endswith(".bin") else not read_volume(name).any()
        if label_tag == DefaultLabelTag.FINAL and empty:
            raise InputError(
                "an empty mask cannot be stored: a DICOM segmentation has at least one voxel. A scan without a lesion teaches as "
                "a healthy subject of --conf training_data"
            )
        return super().save_label(image_id, label_filename, label_tag, label_info, label_id)

    def add_series(self, image_id: str, volume: Callable[[], MetaTensor], description: str, same_scale: bool) -> str:
        """Store a volume on the grid of a scan beside it, in its study, unless it is there.

        Args:
            image_id: series of the scan.
            volume: makes the volume, when it is needed.
            description, same_scale: see `derived_series`.

        Returns:
            series instance UID.
        """
        series = _derived_uid(image_id, description)
        if self._client.search_for_series(search_filters={"SeriesInstanceUID": series}):
            return series
        self.get_image_uri(image_id)
        folder = Path(self._datastore.image_path()) / image_id
        # force: MONAI Label keeps what it downloads without a preamble.
        sources = [pydicom.dcmread(file, force=True) for file in sorted(folder.glob("*.dcm"))]
        self._client.store_instances(derived_series(sources, volume(), description, same_scale))
        return series


def _gray_factor(values: np.ndarray) -> float:
    """The power of ten that spreads values over the gray levels. MR has no unit; viewers take a window of width 1 for none."""
    return 10.0 ** np.floor(np.log10(GRAY_LEVELS / max(float(values.max()), 1e-6)))


def _pixels(instance: Dataset, values: np.ndarray, window: tuple[float, float]) -> None:
    instance.Rows, instance.Columns = values.shape
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 16, 12, 11, 0
    instance.WindowCenter, instance.WindowWidth = (f"{value:.6g}" for value in window)
    instance.PixelData = np.clip(np.round(values), 0, GRAY_LEVELS).astype("<u2").tobytes()


def _mr_module(instance: Dataset) -> None:
    """What an MR image must say of its sequence, where there is none."""
    instance.ScanningSequence, instance.SequenceVariant, instance.ScanOptions = "RM", "NONE", ""
    instance.MRAcquisitionType, instance.EchoTime, instance.RepetitionTime, instance.EchoTrainLength = "3D", "", "", "1"


def _file_meta(instance: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta = meta
    instance.preamble = bytes(128)  # without one, the file that an archive keeps is no DICOM file
    instance.is_little_endian, instance.is_implicit_VR = True, False


def _whole_range(values: np.ndarray) -> tuple[float, float]:
    high = max(float(np.percentile(values, 99.9)), 2.0)
    return high / 2, high


def write_series(volume: MetaTensor, folder: str | Path, patient: str, description: str) -> list[Path]:
    """Write a volume as an MR series, a study and a patient of its own, times the power of ten that makes gray levels of it.

    Args:
        volume: ``(1, X, Y, Z)``, not negative, with an affine to RAS mm whose axes are perpendicular.
        folder: where the files go.
        patient: name and id.
        description: of study and series.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = np.asarray(volume[0], dtype=np.float64)
    values = values * _gray_factor(values)
    window = _whole_range(values)
    affine = LPS @ np.asarray(volume.affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    row, column = (affine[:3, axis] / spacing[axis] for axis in (0, 1))
    study, series, frame, now = generate_uid(), generate_uid(), generate_uid(), datetime.now()
    files = []
    for number in range(values.shape[2]):
        instance = Dataset()
        instance.SOPClassUID, instance.SOPInstanceUID = MRImageStorage, generate_uid()
        instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.FrameOfReferenceUID = study, series, frame
        instance.PatientName, instance.PatientID = patient, patient
        instance.PatientBirthDate, instance.PatientSex = "", ""
        instance.StudyDate = instance.SeriesDate = instance.ContentDate = now.strftime("%Y%m%d")
        instance.StudyTime = instance.SeriesTime = instance.ContentTime = now.strftime("%H%M%S")
        instance.AccessionNumber, instance.ReferringPhysicianName, instance.StudyID = "", "", "1"
        instance.Modality, instance.Manufacturer = "MR", "UNA"
        instance.StudyDescription = instance.SeriesDescription = description
        instance.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        _mr_module(instance)
        instance.SeriesNumber, instance.InstanceNumber = 1, number + 1
        instance.PositionReferenceIndicator, instance.SliceThickness = "", f"{spacing[2]:.6g}"
        instance.SpacingBetweenSlices = f"{spacing[2]:.6g}"
        instance.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]
        instance.ImageOrientationPatient = [f"{v:.10g}" for v in (*row, *column)]
        instance.ImagePositionPatient = [f"{v:.10g}" for v in (affine @ [0, 0, number, 1])[:3]]
        _pixels(instance, values[:, :, number].T, window)
        _file_meta(instance)
        files.append(folder / f"{number:04d}.dcm")
        instance.save_as(files[-1], write_like_original=False)
    return files


def _derived_uid(scan: str, description: str) -> str:
    """The same result of the same scan has the same UID: stored again, it takes its own place."""
    return generate_uid(entropy_srcs=[scan, description])


def derived_series(
    sources: Sequence[Dataset], volume: MetaTensor, description: str, same_scale: bool = False
) -> list[Dataset]:
    """A volume as a series derived from a scan: same patient, study, frame of reference and slices, a reference to each of them.

    What the study needs is copied from the scan, no more: no operators, institution, comments or other ids.

    Args:
        sources: instances of the scan, one a slice.
        volume: ``(1, X, Y, Z)``, not negative, on the grid of the scan.
        description: of the series, after ``UNA``.
        same_scale: the volume has the intensities of the scan, and is shown in its window.
    """
    values = np.asarray(volume[0], dtype=np.float64)
    to_voxel = np.linalg.inv(LPS @ np.asarray(volume.affine, dtype=np.float64))
    factor, now = _gray_factor(values), datetime.now()
    values = values * factor
    window = _whole_range(values)
    if same_scale and "WindowWidth" in sources[0]:  # may have several values; the first is the default
        window = tuple(
            factor * float(np.atleast_1d(sources[0][key].value)[0]) for key in ("WindowCenter", "WindowWidth")
        )
    series = _derived_uid(str(sources[0].SeriesInstanceUID), description)
    instances = []
    for source in sources:
        position, orientation = (
            np.array(source[tag].value, dtype=float) for tag in ("ImagePositionPatient", "ImageOrientationPatient")
        )
        between_rows, between_columns = (float(v) for v in source.PixelSpacing)
        rows, columns = np.mgrid[: source.Rows, : source.Columns]
        points = (
            position[:, None, None]
            + orientation[:3, None, None] * columns * between_columns
            + orientation[3:, None, None] * rows * between_rows
        )
        voxels = np.tensordot(to_voxel[:3, :3], points, axes=1) + to_voxel[:3, 3, None, None]
        i, j, k = np.round(voxels).astype(int)
        inside = np.all([(0 <= a) & (a < n) for a, n in zip((i, j, k), values.shape)], axis=0)
        slice_ = np.zeros(inside.shape)
        slice_[inside] = values[i[inside], j[inside], k[inside]]

        header = Dataset()
        import_hierarchy(header, source, import_frame_of_reference=True)
        for keyword in SCANNER:
            if keyword in header:
                del header[keyword]
        for keyword in GEOMETRY:
            if keyword in source:
                header[keyword] = source[keyword]
        instance = copy.deepcopy(header)  # its elements are still those of the scan
        _mr_module(instance)
        instance.SOPClassUID, instance.SOPInstanceUID, instance.SeriesInstanceUID = (
            MRImageStorage,
            generate_uid(entropy_srcs=[series, str(source.SOPInstanceUID)]),
            series,
        )
        instance.Modality, instance.Manufacturer = "MR", "UNA"
        instance.SeriesDescription, instance.SeriesNumber = (
            f"{OWN}{description}",
            1000 + int(source.get("SeriesNumber") or 0),
        )
        instance.SeriesDate = instance.ContentDate = now.strftime("%Y%m%d")
        instance.SeriesTime = instance.ContentTime = now.strftime("%H%M%S")
        instance.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        instance.DerivationDescription = (
            "Reconstruction by a neural network. Research use only, not for clinical decisions."
        )
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        instance.SourceImageSequence = [reference]
        _pixels(instance, slice_, window)
        _file_meta(instance)
        instances.append(instance)
    return instances
