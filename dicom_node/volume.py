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
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from dicom_node.alternation import alternates
from dicom_node.digest import is_digest_of
from dicom_node.domain.geometry import affine, count
from dicom_node.domain.header import numbers
from dicom_node.domain.job import JobInstance
from dicom_node.domain.study import Slice, chosen, examine, is_multi_frame, planes_of
from dicom_node.domain.volumes import Choice
from dicom_node.errors import GeometryError, SpoolError
from dicom_node.multiframe import frames_of, slices_of_frames
from dicom_node.pixels import StoredImage
from dicom_node.plain import PlainReader
from dicom_node.rescale import check_scales, rescale_into, rescale_of
from dicom_node.spool import Spool
from dicom_node.store.header import read_header

MOST_VOXELS = 2**30  # 4 GiB as they are held: a thousand slices of 1024 x 1024
_THREADS = 4
_RUN = 8  # slices that one thread takes at once: two threads that write to one large page of memory wait for each other


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
        The headers, in the order of the slices, without pixel data. The first is whole; of the others there may be only
        what places them, refers to them and rescales them. A frame of a multi-frame object has one of its own, in which
        Referenced Frame Number (0008,1160) counts from 1.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    datasets: tuple[Dataset, ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between voxel centres: (between slices, between rows, between columns), in mm."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slices), float(rows), float(columns)


def load_volume(
    spool: Spool, instances: Sequence[JobInstance], choice: Choice = MappingProxyType({}), *, plain: bool = True
) -> Volume:
    """Read the slices of a job.

    Parameters
    ----------
    instances : sequence of JobInstance
        In the order that assembly found: ascending along the slice normal.
    choice : mapping
        Which volume the model's card takes of several: frames of one object may make more than one.
    plain : bool
        Whether slices that are stored plainly are read the fast way.

    Raises
    ------
    SpoolError
        If a file is missing, unreadable, or not the bytes that were acknowledged.
    GeometryError
        If the files do not form the volume that assembly found, or if pixels cannot be decoded or rescaled. The text
        names the SOP Instance UID.
    """
    array = _room(instances)
    reader = PlainReader(rescale_of) if plain and array is not None else None
    # Where each slice has its place already, pixels go there while they are in the cache.
    places = [None] * len(instances) if array is None else array
    readers = [None, *[reader] * (len(instances) - 1)]  # of the first the whole header is kept
    each = max(1, min(_RUN, len(instances) // (4 * _THREADS)))

    def read(start: int) -> list[_Image]:
        some = (instances[start : start + each], places[start : start + each], readers[start : start + each])
        return [image for one in zip(*some, strict=True) for image in _read(spool, *one)]

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        runs = threads.map(read, range(0, len(instances), each))
        images, grid = _prove([image for run in runs for image in run], instances, choice)
        if array is None:
            array = np.empty(_shape(len(images), int(images[0].header.Rows), int(images[0].header.Columns)), np.float32)
            list(threads.map(_fill, array, images))
    _refuse_two(array, images[0].header)
    return Volume(array, grid, tuple(image.header for image in images))


def _refuse_two(array: NDArray[np.float32], header: Dataset) -> None:
    """Refuse two volumes whose slices lie between each other. MR that was measured in turns may look like it."""
    if header.get("Modality") in ("CT", "PT") and alternates(array):
        raise GeometryError(
            "Several volumes in one series: its slices are more like the next but one than like their neighbours, as "
            "those of two volumes that lie between each other, and no attribute tells them apart."
        )


def _room(instances: Sequence[JobInstance]) -> NDArray[np.float32] | None:
    """Make room for single slices in their order; None where some hold many, or their size is not known."""
    size = [numbers(instances[0].header, keyword, 1) for keyword in ("Rows", "Columns")]
    if not all(size) or any(is_multi_frame(instance.header) for instance in instances):
        return None
    return np.empty(_shape(len(instances), int(size[0][0]), int(size[1][0])), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """One slice: its header, what examination sees of it, and where its pixels are unless they are in place."""

    header: Dataset
    slice: Slice
    stored: StoredImage | None = None


def read_instance(spool: Spool, instance: JobInstance) -> Dataset:
    """Read what one file says before its pixels, and make sure that it holds what was acknowledged to its sender.

    Pixels that are cut off cost a reader of all of it everything.

    Raises
    ------
    SpoolError
        If the file is missing, unreadable, or not the bytes that were acknowledged.
    GeometryError
        If it cannot be parsed.
    """
    data = read_bytes(spool, instance)
    try:
        return dcmread(BytesIO(data), stop_before_pixels=True)
    except Exception as error:  # whatever the parser says of broken bytes, they will not get better
        raise GeometryError(f"Instance {instance.sop_instance_uid} cannot be parsed: {_short(error)}") from error


def _read(
    spool: Spool,
    instance: JobInstance,
    place: NDArray[np.float32] | None,
    reader: PlainReader | None,
) -> list[_Image]:
    """Read the slices of one file; of a single one the pixels, too, into their place."""
    data = read_bytes(spool, instance)
    start = _data_set_offset(data, instance.sop_instance_uid)
    if reader is not None and place is not None:
        found = reader.read(data, start, instance.transfer_syntax_uid, instance.header, place)
        if found is not None:
            return [_Image(found.header, _slice(found.kept))]
    try:
        stored = StoredImage.of(data)
        kept = read_header(_InMemory(data, start), instance.transfer_syntax_uid)
        frames = frames_of(stored.header) if is_multi_frame(kept) else []
    except GeometryError:
        raise
    except Exception as error:  # whatever parsers say of broken bytes, they will not get better
        raise GeometryError(f"Instance {instance.sop_instance_uid} cannot be parsed: {_short(error)}") from error
    if frames:
        return [_Image(one, seen, stored) for one, seen in zip(frames, slices_of_frames(frames), strict=True)]
    single = _Image(stored.header, _slice(kept), stored)
    if place is not None:
        _fill(place, single)
    return [single]


def _slice(kept: Mapping[str, Any]) -> Slice:
    return Slice(str(kept.get("SOPInstanceUID", "")), kept)


@dataclass(frozen=True, slots=True)
class _InMemory:
    """A data set within a file that was read."""

    data: bytes
    start: int

    def read(self, position: int, length: int) -> bytes:
        """Return up to `length` bytes from `position`."""
        return self.data[self.start + position : self.start + position + length]


def read_bytes(spool: Spool, instance: JobInstance) -> bytes:
    """Read one file as it lies in the spool.

    Raises
    ------
    SpoolError
        If it is missing, unreadable, or not the bytes that were acknowledged.
    """
    uid, data = instance.sop_instance_uid, spool.read(instance.path)
    if not is_digest_of(instance.digest, memoryview(data)[_data_set_offset(data, uid) :]):
        raise SpoolError(f"The file of instance {uid} is not what was received: its digest differs.")
    return data


def _data_set_offset(data: bytes, uid: str) -> int:
    """Where the data set starts: after preamble, prefix and file meta information (PS3.10 7.1)."""
    if data[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00" or len(data) < 144:
        raise SpoolError(f"The file of instance {uid} is not one that this node wrote.")
    (length,) = struct.unpack_from("<I", data, 140)
    return 144 + int(length)


def _prove(
    images: Sequence[_Image], instances: Sequence[JobInstance], choice: Choice
) -> tuple[list[_Image], NDArray[np.float64]]:
    """Order images by their places, once they are proved to be the volume that assembly found."""
    slices = [image.slice for image in images]
    verdict = chosen(examine(slices), choice)
    if verdict.refusal:
        raise GeometryError(verdict.refusal)
    if verdict.slices != tuple(instance.sop_instance_uid for instance in instances):
        raise GeometryError("The files hold the slices in another order than they had when the series was closed.")
    (volume,) = verdict.parts
    by_key = {one.key: image for one, image in zip(slices, images, strict=True)}
    first, last = planes_of([volume.slices[0], volume.slices[-1]])
    grid = np.array(affine(first, last, len(volume.slices)), np.float64)
    ordered = [by_key[one.key] for one in volume.slices]
    check_scales([image.header for image in ordered])
    return ordered, grid


def _shape(*shape: int) -> tuple[int, ...]:
    """Size of the volume, before a byte of it is decoded or asked of the machine."""
    if math.prod(shape) > MOST_VOXELS:
        told = f"{count(shape[0], 'slice')} of {shape[1]} x {shape[2]} pixels"
        raise GeometryError(f"{told} are more than the {MOST_VOXELS} voxels that are read.")
    return shape


def _fill(place: NDArray[np.float32], image: _Image) -> None:
    """Decode one slice, rescale it into its place, and let go of its pixels."""
    assert image.stored is not None
    name, frame = image.slice.key, image.slice.frame
    slope, intercept = rescale_of(image.header, name)
    try:
        stored = image.stored.stored_values(max(frame - 1, 0))
    except Exception as error:  # codecs throw everything at broken or unknown bytes; all of it is a refusal
        raise GeometryError(f"The pixels of instance {name} cannot be decoded: {_short(error)}") from error
    if stored.shape != place.shape:
        told = f"have shape {stored.shape}, its header says {place.shape}"
        raise GeometryError(f"The pixels of instance {name} {told}.")
    rescale_into(place, stored, slope, intercept)
    if not frame:
        image.stored.release()


def _short(error: Exception) -> str:
    """Return the first line of what a library said, with its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
