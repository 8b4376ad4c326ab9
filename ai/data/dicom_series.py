"""Reads DICOM series of slices from folders and zip files, for training and judging.

The node has its own, stricter reader. This one refuses what would silently bend the anatomy (gaps, mixed spacing, two
orientations) and leaves the rest to whoever chose the data.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from ai.contract import Volume

_SLICES = ("CT", "MR", "PT")


@dataclass(frozen=True, slots=True)
class File:
    """One DICOM file: a path, or a member of a zip file."""

    path: Path
    member: str = ""

    def read(self, *, pixels: bool = True) -> FileDataset:
        """Read the data set, with or without its pixel data."""
        if not self.member:
            return pydicom.dcmread(self.path, stop_before_pixels=not pixels)
        with zipfile.ZipFile(self.path) as archive:
            return pydicom.dcmread(io.BytesIO(archive.read(self.member)), stop_before_pixels=not pixels)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A series that was found: its files, unsorted, and what is said of it.

    Parameters
    ----------
    uid, study_uid, frame_uid : str
        Series, Study and Frame of Reference Instance UID.
    modality : str
        ``CT``, ``SEG``, ``RTSTRUCT``, …
    patient : str
        A fingerprint of Patient ID: the same for all series of a patient, and not the number itself.
    files : tuple of File
        Its instances.
    """

    uid: str
    study_uid: str
    frame_uid: str
    modality: str
    patient: str
    files: tuple[File, ...]


def find_series(root: Path) -> list[Series]:
    """Find the DICOM series in a folder (and below it) or in a zip file.

    Parameters
    ----------
    root : pathlib.Path
        Files in it that are not DICOM are passed over.

    Returns
    -------
    list of Series
        Sorted by UID.
    """
    found: dict[str, tuple[FileDataset, list[File]]] = {}
    for file, header in _headers(root):
        found.setdefault(str(header.SeriesInstanceUID), (header, []))[1].append(file)
    return [
        Series(
            uid=uid,
            study_uid=str(header.get("StudyInstanceUID", "")),
            frame_uid=str(header.get("FrameOfReferenceUID", "")),
            modality=str(header.get("Modality", "")),
            patient=patient_fingerprint(str(header.get("PatientID", "")) or uid),
            files=tuple(files),
        )
        for uid, (header, files) in sorted(found.items())
    ]


def patient_fingerprint(patient_id: str) -> str:
    """Sixteen hexadecimal digits that stand for a patient in lists and file names; no secret, only no number."""
    return hashlib.sha256(patient_id.encode()).hexdigest()[:16]


def read_volume(series: Series) -> Volume:
    """Read a series of slices; see `volume_of`."""
    if series.modality not in _SLICES:
        raise ValueError(f"The series {series.uid} is {series.modality or 'of no modality'}, not slices.")
    return volume_of([file.read() for file in series.files])


def volume_of(slices: list[FileDataset]) -> Volume:
    """Stack slices along their normal.

    Parameters
    ----------
    slices : list of pydicom.FileDataset
        One single-frame image each, in any order.

    Returns
    -------
    Volume
        Rescaled values: Hounsfield units for CT.

    Raises
    ------
    ValueError
        If there are fewer than two slices, or size, orientation or distance differ between them.
    """
    if len(slices) < 2:
        raise ValueError("A volume needs at least two slices.")
    first = slices[0]
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    for ds in slices:
        same = np.allclose(np.array(ds.ImageOrientationPatient, dtype=float), orientation, atol=1e-3)
        if not same or (ds.Rows, ds.Columns) != (first.Rows, first.Columns) or ds.PixelSpacing != first.PixelSpacing:
            raise ValueError("The slices differ in orientation, size or pixel spacing.")
    # PS3.3 C.7.6.2.1.1: the first triple points along a row, towards higher column indices.
    along_columns, along_rows = orientation.reshape(2, 3)
    normal = np.cross(along_columns, along_rows)
    placed = sorted(slices, key=lambda ds: float(np.dot(_position(ds), normal)))
    affine = np.eye(4)
    affine[:3, 0] = _between(np.array([_position(ds) for ds in placed]))
    between_rows, between_columns = (float(value) for value in first.PixelSpacing)
    affine[:3, 1] = along_rows * between_rows
    affine[:3, 2] = along_columns * between_columns
    affine[:3, 3] = _position(placed[0])
    array = np.empty((len(placed), first.Rows, first.Columns), dtype=np.float32)
    for plane, ds in zip(array, placed, strict=True):
        plane[:] = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
    return Volume(array, affine, str(first.get("Modality", "CT")))


def _position(ds: FileDataset) -> NDArray[np.float64]:
    return np.array(ds.ImagePositionPatient, dtype=float)


def _between(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Step from slice to slice; no slice may lie farther from its place than a tenth of it."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    length = float(np.linalg.norm(step))
    if length == 0 or float(np.linalg.norm(positions - expected, axis=1).max()) > 0.1 * length:
        raise ValueError("The slices are not evenly spaced: one is missing, doubled, or belongs to another volume.")
    return np.asarray(step, dtype=np.float64)


def _headers(root: Path) -> Iterator[tuple[File, FileDataset]]:
    if zipfile.is_zipfile(root):
        with zipfile.ZipFile(root) as archive:
            for name in sorted(archive.namelist()):
                header = None if name.endswith("/") else _header(io.BytesIO(archive.read(name)))
                if header is not None:
                    yield File(root, name), header
        return
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            header = _header(file)
        if header is not None:
            yield File(path), header


def _header(file: object) -> FileDataset | None:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)  # type: ignore[arg-type]
    except InvalidDicomError:
        return None
    return header if "SeriesInstanceUID" in header else None
