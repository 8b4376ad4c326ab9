"""A single slice of 16 bits, read without a data set being made of it: how nearly every slice of a CT or MR is stored.

Its few attributes that matter are found in place, its pixels go from the file's bytes to the volume. Anything else
gives None, and is read the slow way: both ways give the same values and the same header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.codestream import check_size
from dicom_node.elements import Elements, find_elements, representations_of, tags_of
from dicom_node.pixels import FAST, NATIVE, with_sign
from dicom_node.rescale import RESCALING, rescale_into

_PLACED = (  # read from the file again, although the row has them: a result on the wrong slice is worse than none
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
)
_KEPT = (*_PLACED, *RESCALING, "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_SIZES = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation")
_NOT_PLAIN = ("ModalityLUTSequence", "MeasurementUnitsCodeSequence", "NumberOfFrames")
_TAG = tags_of({*_KEPT, *_SIZES, *_NOT_PLAIN})
_WANTED = representations_of(_TAG.values())
_PLACED_TAGS, _RESCALING_TAGS, _SIZE_TAGS = ([_TAG[one] for one in some] for some in (_PLACED, RESCALING, _SIZES))
_KEPT_TAGS, _NOT_PLAIN_TAGS = (frozenset(_TAG[one] for one in some) for some in (_KEPT, _NOT_PLAIN))
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

Rescale = Callable[[Dataset, str], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PlainSlice:
    """What is known of a slice besides its pixels.

    Attributes
    ----------
    header : pydicom.Dataset
        What places it, refers to it and rescales it; no more.
    kept : mapping
        What examination asks for: from the row, but for what places it.
    """

    header: Dataset
    kept: Mapping[str, Any]


class PlainReader:
    """Reads the slices of one series. `rescale` is asked once for each pair of slope and intercept."""

    def __init__(self, rescale: Rescale) -> None:
        self._rescale = rescale
        self._known: dict[tuple[bytes | None, ...], tuple[float, float]] = {}

    def read(
        self, data: bytes, start: int, syntax: str, row: Mapping[str, Any], place: NDArray[np.float32]
    ) -> PlainSlice | None:
        """Read one slice, its values into `place`.

        Parameters
        ----------
        data : bytes
            The file.
        start : int
            Where the data set begins in it.
        syntax : str
            Transfer Syntax UID.
        row : mapping
            The attributes named in `domain.study.HEADER`, as they were read when the slice was stored.

        Raises
        ------
        GeometryError
            If its unit would be a guess.
        """
        explicit = syntax == ExplicitVRLittleEndian or syntax in FAST
        if not explicit and syntax not in NATIVE:
            return None
        found = find_elements(data, start, _WANTED, explicit=explicit)
        if found is None or not _NOT_PLAIN_TAGS.isdisjoint(found.values):
            return None
        sizes = _sizes(tuple(map(found.values.get, _SIZE_TAGS)))
        if sizes is None or sizes.shape != place.shape:
            return None
        stored = _stored(data, found, syntax, place.shape)
        if stored is None or stored.shape != place.shape:
            return None
        header = found.header(_KEPT_TAGS)
        slope, intercept = self._scale(found, header, str(row["SOPInstanceUID"]))
        rescale_into(place, with_sign(stored, sizes.bits, sizes.representation), slope, intercept)
        own = {
            keyword: _read(found.values.get(tag), keyword) for keyword, tag in zip(_PLACED, _PLACED_TAGS, strict=True)
        }
        return PlainSlice(header, {**row, **own})

    def _scale(self, found: Elements, header: Dataset, name: str) -> tuple[float, float]:
        said = tuple(map(found.values.get, _RESCALING_TAGS))
        if said not in self._known:
            self._known[said] = self._rescale(header, name)
        return self._known[said]


class _Sizes(NamedTuple):
    shape: tuple[int, int]
    bits: int
    representation: int


@lru_cache
def _sizes(values: tuple[bytes | None, ...]) -> _Sizes | None:
    """Read the attributes named in `_SIZES`; None unless they are all there, and of 16 bits for each pixel."""
    if any(value is None or len(value) != 2 for value in values):
        return None
    rows, columns, allocated, bits, high, samples, representation = (
        int.from_bytes(value or b"", "little") for value in values
    )
    if (allocated, samples, high - bits) != (16, 1, -1) or not 0 < bits <= 16 or representation not in (0, 1):
        return None
    return _Sizes((rows, columns), bits, representation)


def _stored(data: bytes, found: Elements, syntax: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if syntax in NATIVE:
        size = 2 * shape[0] * shape[1]
        if found.pixels_length is None or size > min(found.pixels_length, len(data) - found.pixels_at):
            return None
        return np.frombuffer(data, "<u2", size // 2, found.pixels_at).reshape(shape)
    if found.pixels_length is not None or (stream := _code_stream(data, found.pixels_at)) is None:
        return None
    try:
        check_size(stream, shape[0], shape[1])
        return FAST[syntax](stream)
    except Exception:  # noqa: BLE001 - whatever codecs say of broken bytes: the slow way says it to whoever asked
        return None


def _code_stream(data: bytes, position: int) -> bytes | None:
    """Join the fragments of one frame (PS3.5 A.4); the first item is the offset table."""
    fragments = []
    while data[position : position + 4] == _ITEM:
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        fragments.append(data[position : position + length])
        position += length
    if data[position : position + 4] != _SEQUENCE_END or len(fragments) < 2:
        return None
    return fragments[1] if len(fragments) == 2 else b"".join(fragments[1:])


@lru_cache(1024)  # most are the same in all slices
def _read(value: bytes | None, keyword: str) -> Any:
    if not value:
        return None
    if keyword in ("Rows", "Columns"):
        return int.from_bytes(value, "little")
    texts = [text.strip(" \0") for text in value.decode("latin-1").split("\\")]
    return texts[0] if len(texts) == 1 else texts
