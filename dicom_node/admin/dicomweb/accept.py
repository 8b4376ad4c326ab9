"""What a client takes (PS3.18 8.7.4): multipart or one part, in which transfer syntax."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastapi import HTTPException, Request

ANY = "*"
_PART = re.compile(r'\s*([\w*/+.-]+)((?:\s*;\s*[\w-]+=(?:"[^"]*"|[^;,"]*))*)\s*(?:,|$)')
_PARAMETER = re.compile(r';\s*([\w-]+)=(?:"([^"]*)"|([^;,"]*))')


@dataclass(frozen=True, slots=True)
class Accepted:
    """`transfer_syntax` is a UID, `ANY`, or empty for the default; `octets`: a frame is to be called just octets."""

    multipart: bool
    transfer_syntax: str
    octets: bool


def accepted(request: Request, kind: str) -> Accepted:
    """Read the Accept header.

    Parameters
    ----------
    kind : str
        What is given: ``application/dicom`` or, for frames, ``application/octet-stream``.

    Raises
    ------
    HTTPException
        406 when the client takes nothing of the kind.
    """
    header = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    for media, rest in _PART.findall(header):
        told = {name.lower(): quoted or plain.strip() for name, quoted, plain in _PARAMETER.findall(rest)}
        inner = told.get("type", kind) if media == "multipart/related" else media
        frame = kind == "application/octet-stream" and inner.startswith("image/")
        if frame or inner in (kind, "*/*", "application/*"):
            syntax = told.get("transfer-syntax", ANY if media == "*/*" else "")
            default = ANY if inner.startswith("image/") and not syntax else syntax
            return Accepted(media in ("multipart/related", "*/*"), default, inner == "application/octet-stream")
    raise HTTPException(406, f"This can be given as {kind} only.")
