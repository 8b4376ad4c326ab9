"""A body of multipart/related (RFC 2387, RFC 2046 5.1) while it comes in: its parts, piece by piece."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)  # RFC 2046 5.1.1


@dataclass(frozen=True, slots=True)
class PartBegun:
    """The headers of a part are there: its media type, without parameters, in lower case."""

    media_type: str


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part is there as a whole."""


def boundary_of(content_type: str, inner: str) -> str:
    """Read the boundary out of a Content-Type.

    Parameters
    ----------
    inner : str
        The only media type that parts may have.

    Raises
    ------
    HTTPException
        415 when it is no multipart/related of that type, 400 when it has no boundary.
    """
    said = Message()
    said["content-type"] = content_type
    kind = str(said.get_param("type", inner)).lower()
    if said.get_content_type() != "multipart/related" or kind != inner:
        raise HTTPException(415, f'Send multipart/related; type="{inner}".')
    boundary = str(said.get_param("boundary", ""))
    if not _BOUNDARY.fullmatch(boundary):
        raise HTTPException(400, "The Content-Type has no usable boundary.")
    return boundary


class PartReader:
    """Takes bytes as they come, and says what they hold.

    Attributes
    ----------
    has_ended : bool
        Whether the closing boundary was there.
    """

    def __init__(self, boundary: str) -> None:
        self.has_ended = False
        self._found: list[PartBegun | PartEnded | bytes] = []
        self._name = self._value = b""
        self._media_type = ""
        self._parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._take_name,
                "on_header_value": self._take_value,
                "on_header_end": self._end_header,
                "on_headers_finished": lambda: self._found.append(PartBegun(self._media_type)),
                "on_part_data": lambda data, start, end: self._found.append(data[start:end]),
                "on_part_end": lambda: self._found.append(PartEnded()),
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> list[PartBegun | PartEnded | bytes]:
        """Take the next bytes; beginnings, pieces and ends of parts in their order.

        Raises
        ------
        HTTPException
            400 when this is no multipart body.
        """
        self._found = []
        try:
            self._parser.write(data)
        except FormParserError:
            raise HTTPException(400, "The body is not the multipart that its Content-Type announces.") from None
        return self._found

    def _begin(self) -> None:
        self._name = self._value = b""
        self._media_type = ""

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-type":
            self._media_type = self._value.decode("latin-1").partition(";")[0].strip().lower()
        self._name = self._value = b""

    def _end(self) -> None:
        self.has_ended = True
