"""An image as a folder of DICOM files for a program that wants one: the voxels, their places, and nobody's name.

The files are not those that were received. Who the patient is, and what else their headers say, is no business of a
program that may print whatever it reads.
"""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from ai.contract import Volume

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
_UNITS = {"CT": "HU", "PT": "BQML"}


def write_folder(image: Volume, folder: Path) -> None:
    """Write one file for each slice.

    Parameters
    ----------
    image : Volume
        Of a modality in `CLASSES`. Whole numbers stay what they are; other values are written in 65,536 steps.
    folder : pathlib.Path
        An empty folder.
    """
    stored, slope, intercept = _stored(image.array)
    for number, plane in enumerate(stored):
        ds = _slice(image, number)
        ds.PixelRepresentation = 1
        ds.RescaleSlope, ds.RescaleIntercept = _ds(slope), _ds(intercept)
        ds.RescaleType = _UNITS.get(image.modality, "US")
        ds.PixelData = plane.tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(folder / f"{number + 1:05d}.dcm", enforce_file_format=True)


def _stored(array: NDArray[np.float32]) -> tuple[NDArray[np.int16], float, float]:
    """Stored values, with the slope and intercept that give the image's own back."""
    low, high = float(array.min()), float(array.max())
    if low >= -32768 and high <= 32767 and bool((np.rint(array) == array).all()):
        return array.astype("<i2"), 1.0, 0.0
    slope = max((high - low) / 65535, 1e-9)
    return (np.rint((array - low) / slope) - 32768).astype("<i2"), slope, low + 32768 * slope


def _slice(image: Volume, number: int) -> Dataset:
    sop_class, uid = CLASSES[image.modality], _uid(f"slice {number}")
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, uid
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, uid, image.modality
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = map(_uid, ("study", "series", "frame"))
    ds.PositionReferenceIndicator, ds.PatientPosition = "", ""
    ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
    between_slices, between_rows, between_columns = image.spacing_mm
    directions = image.affine[:3, :3] / np.array(image.spacing_mm)
    ds.ImagePositionPatient = [_ds(mm) for mm in image.affine[:3, 3] + number * image.affine[:3, 0]]
    ds.ImageOrientationPatient = [_ds(part) for part in (*directions[:, 2], *directions[:, 1])]
    ds.PixelSpacing = [_ds(between_rows), _ds(between_columns)]
    ds.SliceThickness = ds.SpacingBetweenSlices = _ds(between_slices)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = image.array.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    return ds


def _uid(part: str) -> UID:
    """Always the same: a folder holds one image, and goes when it was read."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, f'dicom-node program input|{part}').int}")


def _ds(value: float) -> str:
    """A decimal string: at most 16 characters (PS3.5 6.2)."""
    return f"{float(value) + 0.0:.10g}"[:16]
