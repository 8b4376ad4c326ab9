"""Stored values of one image, whatever its transfer syntax: straight from the file where nothing is compressed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from dicom_node.codestream import check_size

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def _decode_jpeg_lossless(code_stream: bytes) -> NDArray[Any]:
    """Decode with libjpeg-turbo; it fills up what is missing of a stream that was cut off, so the end is looked at."""
    if not code_stream.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError("a code stream of JPEG without its end")
    decoded: NDArray[Any] = imagecodecs.jpeg8_decode(code_stream)
    return decoded


# Of one sample for each pixel; several times faster here than the plug-ins of pydicom, which decode everything else.
FAST: dict[str, Callable[[bytes], NDArray[Any]]] = {
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEGLossless: _decode_jpeg_lossless,
    JPEGLosslessSV1: _decode_jpeg_lossless,
}


@dataclass(slots=True, eq=False)
class StoredImage:
    """One instance as it was read from its file.

    Attributes
    ----------
    header : pydicom.Dataset
        Everything but the pixels.
    """

    header: Dataset
    _data: bytes = field(repr=False)
    _pixels_at: int = field(repr=False)
    _whole: Dataset | None = field(default=None, repr=False)
    _code_streams: list[bytes] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, data: bytes) -> StoredImage:
        """Parse a file, but not its pixels.

        Raises
        ------
        Exception
            Whatever the parser says of broken bytes.
        """
        source = BytesIO(data)
        header = dcmread(source, stop_before_pixels=True)
        return cls(header, data, source.tell())

    def encoded(self) -> bytes:
        """Give the pixels as they stand in the file, and whatever follows them."""
        return self._data[self._pixels_at :]

    def little_endian(self) -> bytes:
        """Decode the first frame into 32 bits for each sample, however it is stored.

        Raises
        ------
        Exception
            Whatever a codec says of broken or unknown bytes.
        """
        return self.stored_values().astype("<i4").tobytes()

    def stored_values(self, index: int = 0) -> NDArray[Any]:
        """Decode one frame: shape (rows, columns), with the sign that the header tells (PS3.5 8.1.1).

        Raises
        ------
        Exception
            Whatever a codec says of broken or unknown bytes.
        """
        syntax = self.header.file_meta.TransferSyntaxUID
        if syntax in NATIVE and (values := self._native(index, explicit=syntax == ExplicitVRLittleEndian)) is not None:
            return values
        if self._whole is None:
            self._whole = dcmread(BytesIO(self._data))
        decode = FAST.get(syntax) if self.header.get("SamplesPerPixel") == 1 else None
        if syntax.is_encapsulated:
            check_size(self._code_stream(index), int(self.header.Rows), int(self.header.Columns))
        if decode is None:
            several = int(self._whole.get("NumberOfFrames") or 1) > 1
            return pixel_array(self._whole, raw=True, index=index if several else None)
        return with_sign(decode(self._code_stream(index)), int(self.header.BitsStored), self.header.PixelRepresentation)

    def _code_stream(self, index: int) -> bytes:
        if not self._code_streams:
            assert self._whole is not None
            frames = int(self._whole.get("NumberOfFrames") or 1)
            self._code_streams = list(generate_frames(self._whole.PixelData, number_of_frames=frames))
        return self._code_streams[index]

    def release(self) -> None:
        """Let go of the pixels."""
        self._data, self._whole, self._code_streams = b"", None, []

    def _native(self, index: int, *, explicit: bool) -> NDArray[Any] | None:
        """Read 16 bits for each pixel from where they stand; None where the file is laid out otherwise."""
        header, data, start = self.header, self._data, self._pixels_at
        if (header.get("BitsAllocated"), header.get("SamplesPerPixel")) != (16, 1):
            return None
        if header.get("HighBit") != header.get("BitsStored", 0) - 1 or data[start : start + 4] != _PIXEL_DATA:
            return None
        start += 12 if explicit else 8
        (length,) = struct.unpack_from("<I", data, start - 4)
        rows, columns = int(header.Rows), int(header.Columns)
        begin = start + 2 * rows * columns * index
        if begin + 2 * rows * columns > min(start + length, len(data)):
            return None  # pydicom says what is wrong with it
        values = np.frombuffer(data, "<u2", rows * columns, begin).reshape(rows, columns)
        return with_sign(values, int(header.BitsStored), header.PixelRepresentation)


def with_sign(decoded: NDArray[Any], bits: int, representation: int | None) -> NDArray[Any]:
    """Take the bits stored, as two's complement where the header says so (PS3.5 8.1.1); codecs do not.

    Parameters
    ----------
    bits : int
        Bits Stored (0028,0101).
    representation : int, optional
        Pixel Representation (0028,0103): 1 is signed.
    """
    if decoded.dtype.kind == "i":
        return decoded
    unused = decoded.dtype.itemsize * 8 - bits
    if not representation:
        return decoded & ((1 << bits) - 1) if unused > 0 else decoded
    signed = (decoded << unused) if unused else decoded
    return signed.view(f"i{decoded.dtype.itemsize}") >> unused


def one_frame(stored: Dataset | Path, index: int) -> NDArray[Any]:
    """Decode one frame of a segmentation or another object of several frames.

    The bits of a frame may begin within a byte (PS3.5 8.1.1): wherever rows times columns are no multiple of eight.
    pydicom decodes such a frame only together with all others.

    Parameters
    ----------
    stored : pydicom.Dataset or pathlib.Path
    index : int
        From 0.
    """
    header = dcmread(stored, stop_before_pixels=True) if isinstance(stored, Path) else stored
    size = int(header.Rows) * int(header.Columns)
    if header.BitsAllocated != 1 or size % 8 == 0 or header.file_meta.TransferSyntaxUID.is_compressed:
        return pixel_array(stored, index=index, raw=True)
    whole = dcmread(stored) if isinstance(stored, Path) else stored
    first = index * size
    held = np.frombuffer(whole.PixelData, np.uint8)[first // 8 : (first + size + 7) // 8]
    bits = np.unpackbits(held, bitorder="little")[first % 8 : first % 8 + size]
    return bits.reshape(int(header.Rows), int(header.Columns))
