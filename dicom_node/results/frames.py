"""Frames of a segmentation, encoded at once: their functional groups and their pixels as bytes.

highdicom makes a data set of each frame and each of its items; a hundred organs have ten thousand frames, and that took
most of the time of a job. Here what is alike on a slice, or in a segment, is encoded once. Everything else of the
object is highdicom's (seg.py); a test compares the whole with what highdicom alone writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from imagecodecs import packbits_encode
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicom_node.domain.finding import Code

_UNDEFINED = 0xFFFFFFFF
_SOURCE = Code("121322", "DCM", "Source image for image processing operation")
_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_PER_FRAME = (0x5200, 0x9230)
_PIXELS = (0x7FE0, 0x0010)


@dataclass(frozen=True, slots=True)
class Place:
    """Which slice of the source a frame lies on, and which segment it shows: 0 where its pixels say that."""

    slice: int
    segment: int


@dataclass(frozen=True, slots=True, eq=False)
class Framed:
    """A multi-frame object: everything but its frames as a data set, the frames as they follow it in the file."""

    head: Dataset
    frames: bytes


def functional_groups(places: Sequence[Place], slices: Sequence[Dataset]) -> bytes:
    """Encode the Per-Frame Functional Groups Sequence (5200,9230), explicit VR little endian.

    Parameters
    ----------
    places : sequence of Place
        One for each frame, in order.
    slices : sequence of pydicom.Dataset
        Headers of the source.
    """
    shown = sorted({place.slice for place in places}, key=order_of(slices))
    number_of = {k: n for n, k in enumerate(shown, start=1)}  # Dimension Index Values count what is there
    derivation, position = _each(shown, slices, _derivation), _each(shown, slices, _position)
    segment = {n: _encoded(_segment(n)) for n in {place.segment for place in places} if n}
    items = []
    for place in places:
        index = (place.segment, number_of[place.slice]) if place.segment else (number_of[place.slice],)
        parts = derivation[place.slice], _content(index), position[place.slice], segment.get(place.segment, b"")
        items.append(_item(b"".join(parts)))
    return _sequence(_PER_FRAME, b"".join(items))


def order_of(slices: Sequence[Dataset]) -> Callable[[int], float]:
    """Give the key by which frames are ordered: against the normal, as highdicom does."""
    cosines = np.array(slices[0].ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    distances = [-float(normal @ np.array(header.ImagePositionPatient, float)) for header in slices]
    return distances.__getitem__


def bit_pixels(planes: Iterable[NDArray[np.bool_]]) -> bytes:
    """Encode Pixel Data of one bit for each pixel: frames follow each other without padding (PS3.5 8.1.1).

    Parameters
    ----------
    planes : iterable of numpy.ndarray of bool, shape (rows, columns)
    """
    left, parts = iter(planes), []
    while eight := [plane.ravel() for plane in islice(left, 8)]:  # they end with a whole byte
        parts.append(np.packbits(np.concatenate(eight), bitorder="little").tobytes())
    return _native("OB", parts)


def rle_pixels(planes: Iterable[NDArray[Any]]) -> bytes:
    """Encode Pixel Data of one or two bytes for each pixel in RLE Lossless (PS3.5 annex G): every toolkit reads it."""
    content = encapsulate([_rle(plane) for plane in planes], has_bot=True)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2sHL", *_PIXELS, b"OB", 0, _UNDEFINED) + content + end


def _rle(plane: NDArray[Any]) -> bytes:
    """Compress one frame: a segment for each byte of a pixel, the highest first; no run goes on in the next row."""
    octets = plane.astype(plane.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(*plane.shape, -1)
    segments = [packbits_encode(np.ascontiguousarray(octets[..., n])) for n in range(octets.shape[-1])]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    return struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def _native(vr: str, parts: list[bytes]) -> bytes:
    length = sum(map(len, parts))
    padding = [b"\0"] if length % 2 else []
    head = struct.pack("<HH2sHL", *_PIXELS, vr.encode(), 0, length + len(padding))
    return b"".join([head, *parts, *padding])


def _each(shown: Sequence[int], slices: Sequence[Dataset], part: Callable[[Dataset], Dataset]) -> dict[int, bytes]:
    return {k: _encoded(part(slices[k])) for k in shown}


def _derivation(header: Dataset) -> Dataset:
    """Name the slice that a frame was made from."""
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame := header.get("ReferencedFrameNumber"):
        source.ReferencedFrameNumber = frame
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [_code(_SOURCE)]
    derivation, groups = Dataset(), Dataset()
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [_code(_SEGMENTATION)]
    groups.DerivationImageSequence = [derivation]
    return groups


def _position(header: Dataset) -> Dataset:
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = header.ImagePositionPatient
    groups.PlanePositionSequence = [position]
    return groups


def _segment(number: int) -> Dataset:
    segment, groups = Dataset(), Dataset()
    segment.ReferencedSegmentNumber = number
    groups.SegmentIdentificationSequence = [segment]
    return groups


def _content(index: Sequence[int]) -> bytes:
    """Encode a Frame Content Sequence (0020,9111) with its Dimension Index Values (0020,9157)."""
    values = struct.pack(f"<HH2sH{len(index)}L", 0x0020, 0x9157, b"UL", 4 * len(index), *index)
    return _sequence((0x0020, 0x9111), _item(values))


def _sequence(tag: tuple[int, int], items: bytes) -> bytes:
    return struct.pack("<HH2sHL", *tag, b"SQ", 0, len(items)) + items


def _item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def _encoded(groups: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, groups)
    return buffer.getvalue()


def _code(concept: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme
    item.CodeMeaning = concept.meaning
    return item
