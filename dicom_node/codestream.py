"""How large an image a compressed frame says it is: asked before anything is decoded, for decoders believe it."""

from __future__ import annotations

import struct

from dicom_node.errors import GeometryError

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and that of JPEG-LS
_ALONE = frozenset((0x01, 0xFF, *range(0xD0, 0xDA)))  # markers without a length


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
    """Rows and columns; None where the bytes do not say."""
    if code_stream.startswith(_JPEG_2000) and len(code_stream) >= 24:
        right, bottom, left, top = struct.unpack_from(">4I", code_stream, 8)
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
