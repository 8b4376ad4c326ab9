"""A small synthetic CT series, asymmetric in every direction, with the faults that real series have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

Change = Callable[[int, Dataset], Dataset | None]


def small_ct(
    folder: Path,
    *,
    slices: int = 20,
    rows: int = 64,
    columns: int = 64,
    spacing_mm: tuple[float, float, float] = (2.5, 1.5, 1.5),
    origin_mm: tuple[float, float, float] = (-48.0, -48.0, -25.0),
    cosines: tuple[float, float, float, float, float, float] = (1, 0, 0, 0, 1, 0),
    syntax: UID = ExplicitVRLittleEndian,
    change: Change = lambda number, ds: ds,
) -> list[Path]:
    """Write one series.

    Parameters
    ----------
    spacing_mm : (float, float, float)
        Between slices, between rows, between columns.
    origin_mm : (float, float, float)
        Image Position (Patient) of slice 0, LPS.
    cosines : six floats
        Image Orientation (Patient).
    change : callable
        Called with (slice number, data set) before each slice is written; what it returns is written instead, and
        None leaves the slice out.

    Returns
    -------
    list of pathlib.Path
        The files, in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    across, down = np.array(cosines[:3], float), np.array(cosines[3:], float)
    normal = np.cross(across, down)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(slices):
        ds = header(study, series, frame)
        ds.SOPInstanceUID = generate_uid()
        ds.InstanceNumber = number + 1
        ds.Rows, ds.Columns = rows, columns
        ds.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        ds.SliceThickness = spacing_mm[0]
        ds.ImageOrientationPatient = list(cosines)
        position = np.array(origin_mm) + number * spacing_mm[0] * normal
        ds.ImagePositionPatient = [f"{v:.6g}" for v in position]
        ds.PixelData = (anatomy(number, slices, rows, columns, rng) + 1024).astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        changed = change(number, ds)
        if changed is None:
            continue
        changed.file_meta.MediaStorageSOPInstanceUID = changed.SOPInstanceUID
        if syntax.is_compressed:
            changed.compress(syntax, generate_instance_uid=False)
        else:
            changed.file_meta.TransferSyntaxUID = syntax
        path = folder / f"{number:03d}.dcm"
        changed.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def with_attributes(**attributes: object) -> Change:
    """Give each slice some attributes more."""

    def change(number: int, ds: Dataset) -> Dataset:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        return ds

    return change


def header(study: str, series: str, frame: str) -> Dataset:
    """Everything of a slice but its geometry and its pixels. No patient: every value is made up."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CTImageStorage
    ds.PatientName, ds.PatientID = "SYNTHETIC^CHEST", "SYN-001"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600101", "O", "065Y"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250301"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.StudyID, ds.AccessionNumber = "1", "ACC0001"
    ds.ReferringPhysicianName, ds.StudyDescription = "", "CT CHEST SYNTHETIC"
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription = "CT", 2, "CHEST 2.5 LUNG"
    ds.Manufacturer, ds.ManufacturerModelName = "Synthetic", "Phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "S1", "1"
    ds.BodyPartExamined, ds.PatientPosition = "CHEST", "HFS"
    ds.PositionReferenceIndicator = ""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionNumber = 1
    ds.KVP, ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "120", "-1024", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "-600", "1500"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    return ds


def anatomy(number: int, slices: int, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """One slice in HU: a body, a larger lung on the left of the image, a smaller one with a nodule on the right."""
    hu = rng.normal(40, 15, (rows, columns))
    y, x = rows / 64, columns / 64
    if slices // 10 <= number < slices - slices // 10:
        hu[int(16 * y) : int(48 * y), int(6 * x) : int(28 * x)] = -850
        hu[int(16 * y) : int(44 * y), int(36 * x) : int(56 * x)] = -850
    if 2 * slices // 5 <= number < 3 * slices // 5:
        hu[int(28 * y) : int(34 * y), int(42 * x) : int(48 * x)] = 30
    return np.clip(hu, -1024, 3071).astype(np.int32)
