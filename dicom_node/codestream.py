"""How large a frame will be, asked before anything is decoded: decoders believe what headers and code streams say."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.encaps import generate_frames, get_frame
from pydicom.uid import RLELossless

from dicom_node.errors import GeometryError

MOST_IN_FRAME = 2**26  # values: four times those of the largest mammogram
MOST_IN_OBJECT = 2**30
MOST_COMPONENTS = 4

_JPEG, _JPEG_2000, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"
_LONGEST_BOXES = 64 * 1024  # before the code stream of a JP2 file
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and that of JPEG-LS
_ALONE = frozenset((0x01, 0xFF, *range(0xD0, 0xDA)))  # markers without a length


@dataclass(frozen=True, slots=True)
class _Claimed:
    """What a header says of its pixels."""

    rows: int
    columns: int
    samples: int
    frames: int

    @property
    def values(self) -> int:
        """Of one frame."""
        return self.rows * self.columns * self.samples


def check_object(ds: Dataset) -> None:
    """Look whether every frame of an object can be decoded at once, before any is.

    Raises
    ------
    GeometryError
        If they are too many or too large, or header and code streams differ.
    """
    claimed = _claimed(ds)
    if claimed.values * claimed.frames > MOST_IN_OBJECT:
        what = f"{claimed.frames} frames of {claimed.rows} x {claimed.columns} pixels"
        raise GeometryError(f"{what} are too much to be decoded at once")
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        for frame in generate_frames(ds.PixelData, number_of_frames=claimed.frames):
            _check_stream(ds, frame, claimed)


def check_frame(ds: Dataset, index: int) -> None:
    """Look whether one frame of an object can be decoded, before it is.

    Raises
    ------
    GeometryError
        If it is too large, or header and code stream differ.
    """
    claimed = _claimed(ds)
    if claimed.values > MOST_IN_FRAME:
        raise GeometryError(f"a frame of {claimed.rows} x {claimed.columns} pixels is too large to be decoded")
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:  # else there is no more than what stands in the file
        _check_stream(ds, get_frame(ds.PixelData, index, number_of_frames=claimed.frames), claimed)


def _check_stream(ds: Dataset, frame: bytes, claimed: _Claimed) -> None:
    if ds.file_meta.TransferSyntaxUID != RLELossless:
        check_size(frame, claimed.rows, claimed.columns)
    elif len(frame) > 1024 + 2 * claimed.values * max(1, int(ds.BitsAllocated) // 8):  # PS3.5 G.3.1: never so much
        what = f"{claimed.rows} x {claimed.columns} pixels"
        raise GeometryError(f"a compressed frame of {len(frame)} bytes is too long for {what}")


def _claimed(ds: Dataset) -> _Claimed:
    try:
        sizes = [int(ds.Rows), int(ds.Columns), int(ds.get("SamplesPerPixel") or 1), int(ds.get("NumberOfFrames") or 1)]
    except (AttributeError, TypeError, ValueError):
        sizes = [0]
    if min(sizes) <= 0:
        raise GeometryError("the object does not say how many pixels it has")
    return _Claimed(*sizes)


def check_size(code_stream: bytes, rows: int, columns: int) -> None:
    """Compare what a code stream of JPEG, JPEG-LS or JPEG 2000 says with what the header says.

    Raises
    ------
    GeometryError
        If they differ: the voxels would not be where the header places them, or the decoder would fill the memory.
    """
    said = size_of(code_stream)
    if said is not None and said != (rows, columns):
        raise GeometryError(
            f"a compressed frame says that it has {said[0]} x {said[1]} pixels, and its header {rows} x {columns}"
        )


def size_of(code_stream: bytes) -> tuple[int, int] | None:
    """Rows and columns; None where the bytes do not say.

    Raises
    ------
    GeometryError
        If there are more components than any image has.
    """
    at = code_stream.find(_JPEG_2000, 0, _LONGEST_BOXES) if code_stream.startswith(_JP2) else 0
    if at >= 0 and code_stream.startswith(_JPEG_2000, at) and len(code_stream) >= at + 42:
        right, bottom, left, top = struct.unpack_from(">4I", code_stream, at + 8)
        (components,) = struct.unpack_from(">H", code_stream, at + 40)
        if components > MOST_COMPONENTS:
            raise GeometryError(f"a compressed frame says that it has {components} components")
        return bottom - top, right - left
    return _of_jpeg(code_stream) if code_stream.startswith(_JPEG) else None


def _of_jpeg(code_stream: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(code_stream) and code_stream[position] == 0xFF:
        marker = code_stream[position + 1]
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", code_stream, position + 5)
            return (rows, columns) if rows else None  # 0: said later, by a DNL segment
        position += 1 if marker == 0xFF else 2
        if marker not in _ALONE:
            position += int.from_bytes(code_stream[position : position + 2], "big")
    return None
