"""A volume as a CT series (PS3.3 A.3): one file for each slice, of a patient who says that he is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ai.contract import Volume
from ai.phantom.scanner import ScannerPlan

MANUFACTURER = "dicom-node phantom"  # not the node itself, which never works on what it made
MODEL_NAME = "python -m ai phantom"
SYNTHETIC = "Synthetic: no patient. The truth was drawn with the image, not read from it."
_IMPLEMENTATION = "2.25.207216372411583498426236712384723871232"
_INTERCEPT = -1024
_KERNELS = {"soft": "SOFT", "standard": "STANDARD", "lung": "LUNG", "sharp": "SHARP"}


@dataclass(frozen=True, slots=True)
class Study:
    """Who and what a series claims to be of.

    Parameters
    ----------
    identity : str
        All UIDs follow from it: the same text makes the same study again.
    name, patient_id : str
        Patient's Name and Patient ID; both begin with PHANTOM.
    sex : str
        ``F``, ``M`` or empty.
    age_years : int
        Patient's Age.
    date : str
        Study Date, YYYYMMDD.
    comment : str
        Image Comments: what was drawn.
    plan : ScannerPlan, optional
        How it was scanned; None for an image that was not scanned by us.
    """

    identity: str
    name: str
    patient_id: str
    sex: str
    age_years: int
    date: str
    comment: str
    plan: ScannerPlan | None

    def uid(self, part: str) -> str:
        """UID of one part of the study (PS3.5 B.2)."""
        return f"2.25.{uuid5(NAMESPACE_OID, f'dicom-node phantom|{self.identity}|{part}').int}"


def ct_slices(volume: Volume, study: Study) -> list[Dataset]:
    """Make the slices of a series.

    Parameters
    ----------
    volume : Volume
        Hounsfield units; slices at right angles to rows and columns.
    study : Study
        Whose.

    Returns
    -------
    list of pydicom.Dataset
        With pixels and file meta information, in the order of the volume's slices.

    Raises
    ------
    ValueError
        If the slices are sheared against each other: CT Image Storage could say so, viewers could not show it.
    """
    steps = volume.affine[:3, :3]
    directions = steps / np.linalg.norm(steps, axis=0)
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-3):
        raise ValueError("The slices are not at right angles to their rows and columns.")
    count = len(volume.array)
    stored = np.clip(np.round(volume.array) - _INTERCEPT, 0, 4095).astype("<u2")
    up = steps[2, 0] > 0
    return [
        _slice(stored[n], volume, study, directions, n, instance_number=count - n if up else n + 1)
        for n in range(count)
    ]


def write_slices(slices: list[Dataset], folder: Path) -> None:
    """Write the files of a series, numbered, into a folder that is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for ds in slices:
        ds.save_as(folder / f"ct{int(ds.InstanceNumber):04d}.dcm", enforce_file_format=True)


def _slice(
    stored: NDArray[np.uint16],
    volume: Volume,
    study: Study,
    directions: NDArray[np.float64],
    number: int,
    *,
    instance_number: int,
) -> Dataset:
    ds = Dataset()
    ds.file_meta = _file_meta(study.uid(f"ct/{number}"))
    _patient_and_study(ds, study)
    _series(ds, study)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if study.plan else ["DERIVED", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, study.uid(f"ct/{number}")
    ds.InstanceNumber, ds.AcquisitionNumber = instance_number, 1
    ds.InstanceCreationDate = ds.AcquisitionDate = ds.ContentDate = study.date
    ds.InstanceCreationTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.ImageComments = f"{SYNTHETIC} {study.comment}"[:10240]
    ds.QualityControlImage = "YES"  # PS3.3 C.7.6.1: a quality control or phantom image
    position = volume.affine[:3, 3] + number * volume.affine[:3, 0]
    ds.ImagePositionPatient = [_ds(value) for value in position]
    ds.ImageOrientationPatient = [_ds(value) for value in (*directions[:, 2], *directions[:, 1])]
    ds.SliceLocation = _ds(position[2])
    between_slices, between_rows, between_columns = volume.spacing_mm
    ds.PixelSpacing = [_ds(between_rows), _ds(between_columns)]
    ds.SliceThickness = _ds(study.plan.thickness_mm if study.plan else between_slices)
    ds.KVP, ds.GantryDetectorTilt, ds.RotationDirection = "120", "0", "CW"
    ds.ReconstructionDiameter = _ds(max(volume.array.shape[1] * between_rows, volume.array.shape[2] * between_columns))
    if study.plan:
        ds.ConvolutionKernel = _KERNELS[study.plan.kernel]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(_INTERCEPT), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = ["-600", "40"], ["1500", "400"]
    ds.WindowCenterWidthExplanation = ["LUNG", "SOFT TISSUE"]
    ds.PixelData = stored.tobytes()
    return ds


def _patient_and_study(ds: Dataset, study: Study) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = study.name, study.patient_id, ""
    ds.PatientSex, ds.PatientAge = study.sex, f"{study.age_years:03d}Y"
    ds.PatientComments = SYNTHETIC
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = study.uid("study"), "1", ""
    ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName = study.date, "120000", ""
    ds.StudyDescription = "Synthetic chest CT"


def _series(ds: Dataset, study: Study) -> None:
    plan = study.plan
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "CT", study.uid("ct"), 1
    ds.SeriesDate, ds.SeriesTime = study.date, "120000"
    ds.SeriesDescription = (
        f"PHANTOM chest {plan.thickness_mm:g} mm {_KERNELS[plan.kernel]}" if plan else "PHANTOM nodules inserted"
    )
    ds.ProtocolName = f"Synthetic chest, {plan.dose} dose" if plan else "Synthetic nodules in a real chest"
    ds.BodyPartExamined, ds.PatientPosition = "CHEST", "HFS"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = study.uid("frame of reference"), ""
    ds.Manufacturer, ds.ManufacturerModelName, ds.InstitutionName = MANUFACTURER, MODEL_NAME, "None (synthetic)"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"


def _file_meta(sop_instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "DICOM_NODE_0_1"
    return meta


def _ds(value: float) -> str:
    """A decimal string: at most 16 characters (PS3.5 6.2)."""
    return f"{float(value) + 0.0:.10g}"[:16]
