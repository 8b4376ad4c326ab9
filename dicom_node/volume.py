"""A series of stored instances -> one volume of rescaled values, or a refusal that says why.

The geometry is proved again from the files themselves, by the same code that assembly used: rows and files can part
ways, and a result on the wrong slice is worse than none.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from dicom_node.digest import is_digest_of
from dicom_node.domain.geometry import affine, count, sorted_along_normal
from dicom_node.domain.header import numbers
from dicom_node.domain.job import JobInstance
from dicom_node.domain.study import FRAME_HEADER, Slice, examine, is_multi_frame, planes_of
from dicom_node.errors import GeometryError, SpoolError
from dicom_node.multiframe import frames_of, header_of
from dicom_node.pixels import StoredImage
from dicom_node.spool import Spool
from dicom_node.store.header import read_header

MOST_VOXELS = 2**30  # 4 GiB as they are held: a thousand slices of 1024 x 1024
_THREADS = 4
_HOUNSFIELD = ("", "HU", "US")  # Rescale Type (0028,1054) of CT values; US is "unspecified"
_HOUNSFIELD_UNITS = ("", "[hnsf'U]", "HU", "{HU}")  # of a Real World Value Mapping; the first is none


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One series on its own grid.

    Attributes
    ----------
    array : numpy.ndarray of float32, shape (slices, rows, columns)
        Rescaled values (PS3.3 C.11.1): Hounsfield units for CT.
    affine : numpy.ndarray of float64, shape (4, 4)
        Maps (slice, row, column, 1) to LPS coordinates in mm, at the voxel's centre.
    datasets : tuple of pydicom.Dataset
        The headers, in the order of the slices, without pixel data. A frame of a multi-frame object has one of its own,
        in which Referenced Frame Number (0008,1160) counts from 1.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    datasets: tuple[Dataset, ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between voxel centres: (between slices, between rows, between columns), in mm."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slices), float(rows), float(columns)


def load_volume(spool: Spool, instances: Sequence[JobInstance]) -> Volume:
    """Read the slices of a job.

    Parameters
    ----------
    instances : sequence of JobInstance
        In the order that assembly found: ascending along the slice normal.

    Raises
    ------
    SpoolError
        If a file is missing, unreadable, or not the bytes that were acknowledged.
    GeometryError
        If the files do not form the volume that assembly found, or if pixels cannot be decoded or rescaled. The text
        names the SOP Instance UID.
    """
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        array = _room(instances)
        if array is not None:  # each slice has its place already: pixels go there while they are in the cache
            read = threads.map(lambda instance, place: _read(spool, instance, place), instances, array)
            images, grid = _prove([image for some in read for image in some], instances)
        else:
            read = threads.map(lambda instance: _read(spool, instance), instances)
            images, grid = _prove([image for some in read for image in some], instances)
            array = np.empty(_shape(len(images), int(images[0].header.Rows), int(images[0].header.Columns)), np.float32)
            list(threads.map(_fill, array, images))
    return Volume(array, grid, tuple(image.header for image in images))


def _room(instances: Sequence[JobInstance]) -> NDArray[np.float32] | None:
    """Make room for single slices in their order; None where some hold many, or their size is not known."""
    size = [numbers(instances[0].header, keyword, 1) for keyword in ("Rows", "Columns")]
    if not all(size) or any(is_multi_frame(instance.header) for instance in instances):
        return None
    return np.empty(_shape(len(instances), int(size[0][0]), int(size[1][0])), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """One slice: its header, where its pixels are, and what examination asks of it."""

    header: Dataset
    stored: StoredImage
    kept: Mapping[str, Any]
    index: int = 0
    frames: int = 1

    @property
    def name(self) -> str:
        frame = f" frame {self.index + 1}" if self.frames > 1 else ""
        return f"{self.header.get('SOPInstanceUID')}{frame}"


def read_instance(spool: Spool, instance: JobInstance) -> Dataset:
    """Read one file, and make sure that it holds what was acknowledged to its sender.

    Raises
    ------
    SpoolError
        If the file is missing, unreadable, or not the bytes that were acknowledged.
    GeometryError
        If it cannot be parsed.
    """
    data = _bytes_of(spool, instance)
    try:
        return dcmread(BytesIO(data))
    except Exception as error:  # whatever the parser says of broken bytes, they will not get better
        raise GeometryError(f"Instance {instance.sop_instance_uid} cannot be parsed: {_short(error)}") from error


def _read(spool: Spool, instance: JobInstance, place: NDArray[np.float32] | None = None) -> list[_Image]:
    """Read the slices of one file; of a single one the pixels, too, into their place."""
    data = _bytes_of(spool, instance)
    try:
        stored = StoredImage.of(data)
        kept = read_header(_InMemory(data, _data_set_offset(data, "")), instance.transfer_syntax_uid)
        frames = frames_of(stored.header) if is_multi_frame(kept) else []
    except GeometryError:
        raise
    except Exception as error:  # whatever parsers say of broken bytes, they will not get better
        raise GeometryError(f"Instance {instance.sop_instance_uid} cannot be parsed: {_short(error)}") from error
    if frames:
        return [_Image(one, stored, header_of(one, FRAME_HEADER), k, len(frames)) for k, one in enumerate(frames)]
    single = _Image(stored.header, stored, kept)
    if place is not None:
        _fill(place, single)
    return [single]


@dataclass(frozen=True, slots=True)
class _InMemory:
    """A data set within a file that was read."""

    data: bytes
    start: int

    def read(self, position: int, length: int) -> bytes:
        """Return up to `length` bytes from `position`."""
        return self.data[self.start + position : self.start + position + length]


def _bytes_of(spool: Spool, instance: JobInstance) -> bytes:
    uid = instance.sop_instance_uid
    try:
        data = spool.path(instance.path).read_bytes()
    except OSError as error:
        raise SpoolError(f"The file of instance {uid} cannot be read: {error.strerror}.") from error
    if not is_digest_of(instance.digest, memoryview(data)[_data_set_offset(data, uid) :]):
        raise SpoolError(f"The file of instance {uid} is not what was received: its digest differs.")
    return data


def _data_set_offset(data: bytes, uid: str) -> int:
    """Where the data set starts: after preamble, prefix and file meta information (PS3.10 7.1)."""
    if data[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00" or len(data) < 144:
        raise SpoolError(f"The file of instance {uid} is not one that this node wrote.")
    (length,) = struct.unpack_from("<I", data, 140)
    return 144 + int(length)


def _prove(images: Sequence[_Image], instances: Sequence[JobInstance]) -> tuple[list[_Image], NDArray[np.float64]]:
    """Order images by their places, once they are proved to be the volume that assembly found."""
    slices = [_slice_of(image) for image in images]
    verdict = examine(slices)
    if verdict.refusal:
        raise GeometryError(verdict.refusal)
    if verdict.slices != tuple(instance.sop_instance_uid for instance in instances):
        raise GeometryError("The files hold the slices in another order than they had when the series was closed.")
    planes = sorted_along_normal(planes_of(slices))
    by_key = {one.key: image for one, image in zip(slices, images, strict=True)}
    return [by_key[plane.uid] for plane in planes], np.array(affine(planes), np.float64)


def _slice_of(image: _Image) -> Slice:
    number = image.index + 1 if image.header is not image.stored.header else 0
    return Slice(str(image.header.get("SOPInstanceUID", "")), image.kept, number)


def _shape(*shape: int) -> tuple[int, ...]:
    """Size of the volume, before a byte of it is decoded or asked of the machine."""
    if math.prod(shape) > MOST_VOXELS:
        told = f"{count(shape[0], 'slice')} of {shape[1]} x {shape[2]} pixels"
        raise GeometryError(f"{told} are more than the {MOST_VOXELS} voxels that are read.")
    return shape


def _fill(place: NDArray[np.float32], image: _Image) -> None:
    """Decode one slice, rescale it into its place, and let go of its pixels."""
    slope, intercept = _rescale(image.header, image.name)
    try:
        stored = image.stored.stored_values(image.index)
    except Exception as error:  # codecs throw everything at broken or unknown bytes; all of it is a refusal
        raise GeometryError(f"The pixels of instance {image.name} cannot be decoded: {_short(error)}") from error
    if stored.shape != place.shape:
        told = f"have shape {stored.shape}, its header says {place.shape}"
        raise GeometryError(f"The pixels of instance {image.name} {told}.")
    place[...] = stored
    if slope != 1:
        place *= np.float32(slope)
    place += np.float32(intercept)
    if image.frames == 1:
        image.stored.release()


def _rescale(ds: Dataset, uid: str) -> tuple[float, float]:
    """Slope and intercept of the Modality LUT Module; refuses where the unit of the values would be a guess."""
    if "ModalityLUTSequence" in ds:
        raise GeometryError(f"Instance {uid} has a Modality LUT Sequence, which is not supported.")
    is_ct = ds.get("Modality") == "CT"
    if is_ct and (ds.get("RescaleSlope") is None or ds.get("RescaleIntercept") is None):
        raise GeometryError(f"CT instance {uid} without Rescale Slope and Intercept: its values are in no known unit.")
    kind = str(ds.get("RescaleType") or "").strip().upper()
    if is_ct and kind not in _HOUNSFIELD:
        raise GeometryError(f"The values of CT instance {uid} are in {kind}, not in Hounsfield units.")
    if is_ct and (unit := _mapped_unit(ds)) not in _HOUNSFIELD_UNITS:
        raise GeometryError(f"The values of CT instance {uid} stand for {unit}, not for Hounsfield units.")
    slope, intercept = (_number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0))
    if not math.isfinite(slope) or not math.isfinite(intercept) or slope == 0:
        raise GeometryError(f"Instance {uid} has Rescale Slope {slope:g} and Intercept {intercept:g}, which cannot be.")
    return slope, intercept


def _mapped_unit(ds: Dataset) -> str:
    """Unit of the Real World Value Mapping of a frame (PS3.3 C.7.6.16.2.11): perfusion is no density."""
    units = ds.get("MeasurementUnitsCodeSequence") or []
    return str(units[0].get("CodeValue") or "") if units else ""


def _number(ds: Dataset, keyword: str, default: float) -> float:
    value = ds.get(keyword)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan


def _short(error: Exception) -> str:
    """Return the first line of what a library said, with its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
