"""Where some elements of a data set lie in a file, found by stepping over the others: a slice needs few of hundreds.

Little endian alone, and nothing odd: whatever is not exactly as PS3.5 section 7 has it gives None, and who asked reads
the file with pydicom, which knows what to do about it or what to say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 8
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_length = struct.Struct("<I").unpack_from


@dataclass(frozen=True, slots=True)
class Elements:
    """Some elements before the pixels, and where the pixels begin.

    Attributes
    ----------
    values : dict of int to bytes
        By tag; what is absent is left out.
    pixels_at : int
        Where the value of Pixel Data (7FE0,0010) begins in the file.
    pixels_length : int, optional
        Bytes of it; None where it is in fragments.
    """

    values: dict[int, bytes]
    pixels_at: int
    pixels_length: int | None

    def header(self, tags: Set[int]) -> Dataset:
        """Give some of them as a data set, to be read when they are asked for."""
        return Dataset(dict([_raw(number, value) for number, value in self.values.items() if number in tags]))


@lru_cache(1024)  # most are the same in all slices
def _raw(number: int, value: bytes) -> tuple[BaseTag, RawDataElement]:
    tag = BaseTag(number)
    return tag, RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, True, True)


def tags_of(keywords: Iterable[str]) -> dict[str, int]:
    """Tags of attributes, by their keywords."""
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    return {keyword: int(tag) for keyword, tag in tags.items() if tag is not None}


def representations_of(tags: Iterable[int]) -> dict[int, bytes]:
    """Value representations that the standard has for some tags."""
    return {tag: dictionary_VR(tag).encode() for tag in tags}


def find_elements(data: bytes, start: int, wanted: Mapping[int, bytes], *, explicit: bool) -> Elements | None:
    """Find elements of a data set and its pixels.

    Parameters
    ----------
    data : bytes
        The file.
    start : int
        Where the data set begins in it.
    wanted : mapping of int to bytes
        Tags, and the value representation that each has to have.

    Returns
    -------
    Elements or None
        None where the data set is laid out otherwise, or has no pixels.
    """
    try:
        return _find(data, start, wanted, explicit)
    except (struct.error, _OddError):
        return None


def _find(data: bytes, position: int, wanted: Mapping[int, bytes], explicit: bool) -> Elements:
    values: dict[int, bytes] = {}
    before = 0
    while True:  # some hundred elements of each slice of a series: their heads are read here, without a call
        if explicit:
            group, number, vr, length = _explicit(data, position)
            if vr in _SHORT:
                position += 8
            elif vr in _LONG:
                length = _length(data, position + 8)[0]
                position += 12
            else:
                raise _OddError
        else:
            group, number, length = _implicit(data, position)
            vr = b""
            position += 8
        tag = group << 16 | number
        if tag <= before or tag > _PIXEL_DATA:
            raise _OddError
        before = tag
        if tag == _PIXEL_DATA:
            return Elements(values, position, None if length == _UNDEFINED else length)
        if tag in wanted:
            if length == _UNDEFINED or (explicit and vr != wanted[tag]):
                raise _OddError
            values[tag] = data[position : position + length]
        if length == _UNDEFINED:
            position = _after_sequence(data, position, explicit and vr != b"UN", _DEEPEST)
        else:
            position += length


def _head(data: bytes, position: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR and length of the element here, and where its value begins."""
    if not explicit:
        group, number, length = _implicit(data, position)
        return group << 16 | number, b"", length, position + 8
    group, number, vr, length = _explicit(data, position)
    if vr in _SHORT:
        return group << 16 | number, vr, length, position + 8
    if vr not in _LONG:
        raise _OddError
    return group << 16 | number, vr, _length(data, position + 8)[0], position + 12


def _after_sequence(data: bytes, position: int, explicit: bool, deepest: int) -> int:
    """Where a sequence of undefined length ends."""
    if not deepest:
        raise _OddError
    while True:
        group, number, length = _implicit(data, position)
        position += 8
        if (group, number) == _SEQUENCE_END:
            return position
        if (group, number) != _ITEM:
            raise _OddError
        position = _after_item(data, position, explicit, deepest) if length == _UNDEFINED else position + length


def _after_item(data: bytes, position: int, explicit: bool, deepest: int) -> int:
    while _implicit(data, position)[:2] != _ITEM_END:
        _, vr, length, position = _head(data, position, explicit)
        if length == _UNDEFINED:
            position = _after_sequence(data, position, explicit and vr != b"UN", deepest - 1)
        else:
            position += length
    return position + 8


class _OddError(Exception):
    """The data set is laid out in a way that pydicom knows more about."""
