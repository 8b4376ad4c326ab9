"""Read the attributes that we keep from a data set that has just arrived, and touch nothing else of it.

Values that are not wanted are stepped over, so neither their size nor what they hold matters; sequences of undefined
length are walked without recursion. Work and memory are bounded whatever a peer sends.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Sequence, Set
from functools import cache, lru_cache
from typing import Any, Protocol

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_node.domain.study import HEADER
from dicom_node.domain.uids import is_uid
from dicom_node.errors import CannotUnderstand

MOST_ELEMENTS = 100_000
MOST_IN_FILE = 2_000_000  # frames in fragments among them
DEEPEST = 1_000
LONGEST_VALUE = 4_096
LONGEST_PADDING = 64 * 1024
MOST_INFLATED = 16 * 1024 * 1024
MOST_BYTES = 4 * 1024**3

_CHARACTER_SET, _SERIES_INSTANCE_UID = 0x00080005, 0x0020000E
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset((b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH"))
_SHORT |= {b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
# The whole data set is deflated (PS3.5 A.5, A.7, A.11), not only its frames; the others are the two of JPIP.
_DEFLATED = {DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_WINDOW = 64 * 1024


class Source(Protocol):
    """Where the bytes of a data set can be read."""

    def read(self, position: int, length: int) -> bytes:
        """Return up to `length` bytes from `position`; fewer only at the end."""


def read_header(source: Source, transfer_syntax_uid: str) -> dict[str, Any]:
    """Read the attributes named in `domain.study.HEADER`.

    Parameters
    ----------
    source : Source
        The data set as sent.
    transfer_syntax_uid : str
        How it is encoded.

    Returns
    -------
    dict
        Keyword -> text, number or list of them, as JSON and both databases take them; what is absent or empty is left
        out.

    Raises
    ------
    CannotUnderstand
        If the elements up to the last one wanted cannot be walked.
    """
    walk = _walk(source, transfer_syntax_uid)
    wanted = _wanted()
    raw = walk.collect(_tags())
    encodings = _encodings(raw.pop(_CHARACTER_SET, b""))
    header: dict[str, Any] = {}
    for tag, value in raw.items():
        keyword, vr, several = wanted[tag]
        if values := _values(value, vr, several, encodings, walk.order):
            header[keyword] = values[0] if len(values) == 1 else [*values]
    return header


def read_series_uid(source: Source, transfer_syntax_uid: str) -> str:
    """Read which series an instance belongs to, from as much of it as there is; empty where that cannot be told."""
    try:
        value = _walk(source, transfer_syntax_uid).collect({_SERIES_INSTANCE_UID}).get(_SERIES_INSTANCE_UID, b"")
    except CannotUnderstand:
        return ""
    uid = value.decode("ascii", "replace").strip("\0 ")
    return uid if is_uid(uid) else ""


def check_whole(source: Source, transfer_syntax_uid: str, size: int) -> None:
    """Walk a data set to its end, which a file has to say by itself: nothing around it tells how long it is.

    Parameters
    ----------
    size : int
        Bytes of the data set as it lies there.

    Raises
    ------
    CannotUnderstand
        If it ends inside an element: the file was cut off, or is still being written.
    """
    if transfer_syntax_uid in _DEFLATED:
        _Inflated(source).to_end()
    else:
        _walk(source, transfer_syntax_uid).to_end(size)


def _walk(source: Source, transfer_syntax_uid: str) -> _Walk:
    if transfer_syntax_uid in _DEFLATED:
        source = _Inflated(source)
    return _Walk(
        _Window(source),
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        order=">" if transfer_syntax_uid == ExplicitVRBigEndian else "<",
    )


class _Walk:
    """Steps from element to element (PS3.5 section 7)."""

    def __init__(self, window: _Window, *, implicit: bool, order: str) -> None:
        self.order = order
        self._window = window
        self._implicit = implicit
        self._position = 0
        self._elements = 0
        self._most = MOST_ELEMENTS
        self._tag = struct.Struct(f"{order}HH")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}I")
        self._head = struct.Struct(f"{order}HH2sH")

    def collect(self, wanted: Set[int]) -> dict[int, bytes]:
        """Values of the wanted elements of the data set itself, by tag; nothing after the last of them is looked at."""
        last = max(wanted)
        found: dict[int, bytes] = {}
        while True:
            if not self._implicit:
                self._collect_plain(wanted, last, found)
            if (element := self._next(self._implicit)) is None:
                break
            tag, vr, length = element
            if tag > last:
                break
            if length == _UNDEFINED:
                self._skip_undefined(self._implicit or vr == b"UN")  # UN holds implicit VR (PS3.5 6.2.2)
                continue
            if tag in wanted and length <= LONGEST_VALUE:
                found[tag] = self._value(tag, length)
                if tag == last:
                    break
            self._position += length
        return found

    def _collect_plain(self, wanted: Set[int], last: int, found: dict[int, bytes]) -> None:
        """Do at once what most elements need: those with a VR and a length, which lie in the window as a whole."""
        data, start = self._window.around(self._position)
        at, end = self._position - start, len(data) - 12
        most, seen = self._most - self._elements, 0
        while at <= end and seen < most:
            group, number, vr, length = self._head.unpack_from(data, at)
            size = 8
            if vr not in _SHORT:
                if vr not in _LONG:
                    break
                (length,) = self._long.unpack_from(data, at + 8)
                size = 12
            tag = group << 16 | number
            after = at + size + length
            if length == _UNDEFINED or tag >= last or after > len(data):
                break
            if tag in wanted and length <= LONGEST_VALUE:
                found[tag] = data[at + size : after]
            at = after
            seen += 1
        self._position = start + at
        self._elements += seen

    def to_end(self, size: int) -> None:
        """Step over every element; the last has to end where the data set does, zeros after it aside."""
        self._most = MOST_IN_FILE
        tag = 0
        while self._position < size:
            if not any(self._window.at(self._position, 4)):
                self._check_padding(size)
                return
            element = self._next(self._implicit)
            if element is None:
                return
            tag, vr, length = element
            if length == _UNDEFINED:
                self._skip_undefined(self._implicit or vr == b"UN")
            else:
                self._position += length
        if self._position > size:
            raise CannotUnderstand(f"the data set ends inside element ({tag >> 16:04X},{tag & 0xFFFF:04X})")

    def _check_padding(self, size: int) -> None:
        """Let zeros stand after the last element, as far as some media round a file up."""
        left = size - self._position
        if left > LONGEST_PADDING or any(self._window.at(self._position, left)):
            raise CannotUnderstand(f"{left} bytes that are no element stand at the end")

    def _next(self, implicit: bool) -> tuple[int, bytes, int] | None:
        """Tag, VR and length of the element here, and the position after them; None at the end of the data set."""
        head = self._window.at(self._position, 12)
        if not head:
            return None
        self._elements += 1
        if self._elements > self._most:
            raise CannotUnderstand(f"more than {self._most} elements before the image")
        if len(head) < 8:
            raise CannotUnderstand("the data set ends inside an element")
        group, number = self._tag.unpack_from(head)
        vr = head[4:6]
        # an item has no VR; and some devices switch to implicit VR in the middle, as pydicom knows as well
        if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            self._position += 8
            return group << 16 | number, b"", self._long.unpack_from(head, 4)[0]
        if vr not in _LONG:
            self._position += 8
            return group << 16 | number, vr, self._short.unpack_from(head, 6)[0]
        if len(head) < 12:
            raise CannotUnderstand("the data set ends inside an element")
        self._position += 12
        return group << 16 | number, vr, self._long.unpack_from(head, 8)[0]

    def _value(self, tag: int, length: int) -> bytes:
        value = self._window.at(self._position, length)
        if len(value) < length:
            raise CannotUnderstand(f"the data set ends inside element ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        return value

    def _skip_undefined(self, implicit: bool) -> None:
        """Step over a sequence of undefined length, the position being after its head."""
        ends = [(_SEQUENCE_END, implicit)]  # what is open here, innermost last, and how its elements are encoded
        while ends:
            end, implicit = ends[-1]
            element = self._next(implicit)
            if element is None:
                raise CannotUnderstand("the data set ends inside a sequence")
            tag, vr, length = element
            if tag == end:
                ends.pop()
            elif (tag == _ITEM) != (end == _SEQUENCE_END):
                raise CannotUnderstand(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) where none can be in a sequence")
            elif length != _UNDEFINED:
                self._position += length
            elif len(ends) == DEEPEST:
                raise CannotUnderstand(f"sequences more than {DEEPEST} levels deep")
            else:
                ends.append((_ITEM_END, implicit) if tag == _ITEM else (_SEQUENCE_END, implicit or vr == b"UN"))


class _Window:
    """The part of a source around where we read, so that small steps cost no system call."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = 0
        self._bytes = b""

    def around(self, position: int) -> tuple[bytes, int]:
        """Give what lies around a place, and where that begins."""
        self.at(position, 12)
        return self._bytes, self._start

    def at(self, position: int, length: int) -> bytes:
        """Read `length` bytes at `position`; fewer only at the end of the data set."""
        start = position - self._start
        if start < 0 or start + length > len(self._bytes):
            self._bytes = self._source.read(position, max(_WINDOW, length))
            self._start, start = position, 0
        return self._bytes[start : start + length]


class _Inflated:
    """A deflated data set (PS3.5 A.5), inflated as far as it is read and no further than `MOST_INFLATED`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._consumed = 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._bytes = bytearray()

    def read(self, position: int, length: int) -> bytes:
        """Read what would stand there uncompressed."""
        while len(self._bytes) < position + length and self._more():
            pass
        if position >= MOST_INFLATED:
            raise CannotUnderstand(f"a deflated data set with more than {MOST_INFLATED >> 20} MiB before the image")
        return bytes(self._bytes[position : position + length])

    def to_end(self) -> None:
        """Inflate all of it, and keep nothing."""
        inflated = 0
        while self._more():
            inflated += len(self._bytes)
            self._bytes.clear()
            if inflated > MOST_BYTES:
                raise CannotUnderstand(f"a deflated data set of more than {MOST_BYTES >> 30} GiB")
        if not self._inflater.eof:
            raise CannotUnderstand("the deflated data set ends before its end")

    def _more(self) -> bool:
        if self._inflater.eof or len(self._bytes) >= MOST_INFLATED:
            return False
        deflated = self._inflater.unconsumed_tail or self._source.read(self._consumed, _WINDOW)
        if deflated is not self._inflater.unconsumed_tail:
            self._consumed += len(deflated)
        try:
            inflated = self._inflater.decompress(deflated, _WINDOW)
        except zlib.error as error:
            raise CannotUnderstand(f"a deflated data set that cannot be inflated: {error}") from None
        self._bytes += inflated
        return bool(deflated or inflated)


@cache
def _wanted() -> dict[int, tuple[str, str, bool]]:
    """Tag -> keyword, VR, and whether a backslash separates values."""
    found = {}
    for keyword in HEADER:
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        found[int(tag)] = (keyword, dictionary_VR(tag), dictionary_VM(tag) != "1")
    return found


@cache
def _tags() -> frozenset[int]:
    return frozenset(_wanted()) | {_CHARACTER_SET}


def _encodings(value: bytes) -> tuple[str, ...]:
    """Python's names of the character sets; those that nobody knows are left out."""
    names = value.decode("ascii", "replace").split("\\")
    found = tuple(python_encoding[name.strip("\0 ")] for name in names if name.strip("\0 ") in python_encoding)
    return found or ("iso8859",)


@lru_cache(1024)  # for in all slices of a series most values are the same
def _values(value: bytes, vr: str, several: bool, encodings: tuple[str, ...], order: str) -> Sequence[Any]:
    if code := _NUMBERS.get(vr):
        size = struct.calcsize(f"={code}")
        if not value or len(value) % size:
            return []
        numbers: tuple[float, ...] = struct.unpack(f"{order}{len(value) // size}{code}", value)
        return numbers if all(math.isfinite(n) for n in numbers) else []
    text = _decoded(value, encodings)
    values = [_clean(part) for part in (text.split("\\") if several else [text])]
    return values if any(values) else []


def _decoded(value: bytes, encodings: tuple[str, ...]) -> str:
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if b"\x1b" not in value:
        return value.decode(encodings[0], "replace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they would quote the value, which may be a patient's
        try:
            text: str = decode_bytes(value, [*encodings], {0x5C})
        except (LookupError, UnicodeError, ValueError):
            text = value.decode("iso8859")
    return text


def _clean(text: str) -> str:
    """Drop what no database text holds: NUL, control characters and lone surrogates."""
    text = text.strip("\0 ")
    return (text if text.isprintable() else "".join(c for c in text if c.isprintable())).strip()
