"""A series of stored instances -> one volume of rescaled values, or a refusal that says why.

The geometry is proved again from the files themselves, by the same code that assembly used: rows and files can part
ways, and a result on the wrong slice is worse than none.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

from dicom_node.digest import is_digest_of
from dicom_node.domain.geometry import affine
from dicom_node.domain.job import JobInstance
from dicom_node.domain.study import HEADER, Slice, examine, planes_of
from dicom_node.errors import GeometryError, SpoolError
from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_THREADS = 4
_HOUNSFIELD = ("", "HU", "US")  # Rescale Type (0028,1054) of CT values; US is "unspecified"
# Several times faster here than the plug-ins of pydicom, which decode everything else.
_FAST: dict[str, Callable[[bytes], NDArray[Any]]] = {
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEGLossless: imagecodecs.jpegsof3_decode,
    JPEGLosslessSV1: imagecodecs.jpegsof3_decode,
}


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
        The headers, in the order of the slices, without pixel data.
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
        datasets = list(threads.map(lambda instance: read_instance(spool, instance), instances))
        grid = _prove(datasets, instances)
        array = np.empty((len(datasets), int(datasets[0].Rows), int(datasets[0].Columns)), np.float32)
        list(threads.map(_fill, array, datasets))
    return Volume(array, grid, tuple(datasets))


def read_instance(spool: Spool, instance: JobInstance) -> Dataset:
    """Read one file, and make sure that it holds what was acknowledged to its sender.

    Raises
    ------
    SpoolError
        If the file is missing, unreadable, or not the bytes that were acknowledged.
    GeometryError
        If it cannot be parsed.
    """
    uid = instance.sop_instance_uid
    try:
        data = spool.path(instance.path).read_bytes()
    except OSError as error:
        raise SpoolError(f"The file of instance {uid} cannot be read: {error.strerror}.") from error
    if not is_digest_of(instance.digest, memoryview(data)[_data_set_offset(data, uid) :]):
        raise SpoolError(f"The file of instance {uid} is not what was received: its digest differs.")
    try:
        return dcmread(BytesIO(data))
    except Exception as error:  # whatever the parser says of broken bytes, they will not get better
        raise GeometryError(f"Instance {uid} cannot be parsed: {_short(error)}") from error


def _data_set_offset(data: bytes, uid: str) -> int:
    """Where the data set starts: after preamble, prefix and file meta information (PS3.10 7.1)."""
    if data[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00" or len(data) < 144:
        raise SpoolError(f"The file of instance {uid} is not one that this node wrote.")
    (length,) = struct.unpack_from("<I", data, 140)
    return 144 + int(length)


def _prove(datasets: Sequence[Dataset], instances: Sequence[JobInstance]) -> NDArray[np.float64]:
    slices = [Slice(str(ds.get("SOPInstanceUID", "")), _header(ds)) for ds in datasets]
    verdict = examine(slices)
    if verdict.refusal:
        raise GeometryError(verdict.refusal)
    if verdict.slices != tuple(instance.sop_instance_uid for instance in instances):
        raise GeometryError("The files hold the slices in another order than they had when the series was closed.")
    return np.array(affine(planes_of(slices)), np.float64)


def _header(ds: Dataset) -> dict[str, Any]:
    """Attributes as `domain.study` reads them; a value that cannot be read counts as absent."""
    header = {}
    for keyword in HEADER:
        try:
            value = ds.get(keyword)
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            logger.debug("%s of instance %s: %s", keyword, ds.get("SOPInstanceUID"), error)
            continue
        if value is not None:
            header[keyword] = [str(v) for v in value] if isinstance(value, MultiValue) else str(value)
    return header


def _fill(place: NDArray[np.float32], ds: Dataset) -> None:
    """Decode one slice, rescale it into its place, and let go of its pixels."""
    uid = ds.SOPInstanceUID
    slope, intercept = _rescale(ds)
    try:
        stored = _stored_values(ds)
    except Exception as error:  # codecs throw everything at broken or unknown bytes; all of it is a refusal
        raise GeometryError(f"The pixels of instance {uid} cannot be decoded: {_short(error)}") from error
    if stored.shape != place.shape:
        raise GeometryError(f"The pixels of instance {uid} have shape {stored.shape}, its header says {place.shape}.")
    np.multiply(stored, np.float32(slope), out=place, dtype=np.float32)
    place += np.float32(intercept)
    del ds.PixelData


def _stored_values(ds: Dataset) -> NDArray[Any]:
    decode = _FAST.get(ds.file_meta.TransferSyntaxUID)
    if decode is None:
        return pixel_array(ds, raw=True)
    return _with_sign(decode(next(generate_frames(ds.PixelData, number_of_frames=1))), ds)


def _with_sign(decoded: NDArray[Any], ds: Dataset) -> NDArray[Any]:
    """Read the stored bits as two's complement where the header says so (PS3.5 8.1.1); codecs do not."""
    if not ds.PixelRepresentation or decoded.dtype.kind == "i":
        return decoded
    unused = decoded.dtype.itemsize * 8 - int(ds.BitsStored)
    return (decoded << unused).view(f"i{decoded.dtype.itemsize}") >> unused


def _rescale(ds: Dataset) -> tuple[float, float]:
    """Slope and intercept of the Modality LUT Module; refuses where the unit of the values would be a guess."""
    uid = ds.SOPInstanceUID
    if "ModalityLUTSequence" in ds:
        raise GeometryError(f"Instance {uid} has a Modality LUT Sequence, which is not supported.")
    is_ct = ds.get("Modality") == "CT"
    if is_ct and (ds.get("RescaleSlope") is None or ds.get("RescaleIntercept") is None):
        raise GeometryError(f"CT instance {uid} without Rescale Slope and Intercept: its values are in no known unit.")
    kind = str(ds.get("RescaleType") or "").strip().upper()
    if is_ct and kind not in _HOUNSFIELD:
        raise GeometryError(f"The values of CT instance {uid} are in {kind}, not in Hounsfield units.")
    slope, intercept = (_number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0))
    if not math.isfinite(slope) or not math.isfinite(intercept) or slope == 0:
        raise GeometryError(f"Instance {uid} has Rescale Slope {slope:g} and Intercept {intercept:g}, which cannot be.")
    return slope, intercept


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
