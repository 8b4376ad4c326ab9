"""WADO-RS (PS3.18 10.4): instances, metadata, frames, rendered images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from typing import Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import UID, ExplicitVRLittleEndian
from starlette.responses import Response, StreamingResponse

from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.dicomweb.accept import ANY, Accepted, accepted
from dicom_node.admin.dicomweb.search import DicomJSON
from dicom_node.admin.guard import needs
from dicom_node.admin.trail import given_out
from dicom_node.codestream import check_frame, check_object
from dicom_node.db import objects
from dicom_node.db.objects import StoredObject
from dicom_node.domain.people import Right
from dicom_node.errors import GeometryError, NotFoundError, SpoolError
from dicom_node.picture import slice_png
from dicom_node.pixels import one_frame

router = APIRouter(prefix="/dicom-web", include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])

_FRAMES = re.compile(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*")
_WINDOW = re.compile(r"(-?[0-9]{1,9}(?:\.[0-9]{0,9})?),([0-9]{1,9}(?:\.[0-9]{0,9})?)(?:,.*)?")
_CHUNK = 1024 * 1024
_MOST_INLINE = 64 * 1024  # bytes of one value in metadata
# What a frame is called by its transfer syntax (PS3.18 table 8.7.3-5); others are decoded.
_MEDIA = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


@router.get("/studies/{study}")
@router.get("/studies/{study}/series/{series}")
@router.get("/studies/{study}/series/{series}/instances/{instance}")
def retrieve(request: Request, study: str, series: str = "", instance: str = "") -> Response:
    """Give objects as they are stored, or decoded where the client wants no compression."""
    desk = desk_of(request)
    stored = _find(request, study, series, instance)
    how = accepted(request, "application/dicom")
    for one in (each for each in stored if _must_decode(each, how)):
        _check(partial(check_object, _read(desk, one)))
    parts = ((_file_type(one, how), _file(desk, one, how)) for one in stored)
    if not how.multipart and len(stored) == 1:
        return Response(_file(desk, stored[0], how), media_type="application/dicom")
    return _multipart(parts, "application/dicom")


@router.get("/studies/{study}/metadata")
@router.get("/studies/{study}/series/{series}/metadata")
@router.get("/studies/{study}/series/{series}/instances/{instance}/metadata")
def metadata(request: Request, study: str, series: str = "", instance: str = "") -> Response:
    """Give every attribute but pixels, as DICOM JSON."""
    desk = desk_of(request)
    return DicomJSON([_attributes(desk, one) for one in _find(request, study, series, instance)])


@router.get("/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}")
def frames(request: Request, study: str, series: str, instance: str, numbers: str) -> Response:
    """Give frames, counted from 1: as they are stored where the client takes that, else decoded."""
    desk = desk_of(request)
    (one,) = _find(request, study, series, instance)
    if not _FRAMES.fullmatch(numbers):
        raise HTTPException(400, "Frames are numbers from 1, with commas between.")
    wanted = [int(n) for n in numbers.split(",")]
    how = accepted(request, "application/octet-stream")
    media = _MEDIA.get(one.transfer_syntax_uid)
    ds = _read(desk, one)
    if max(wanted) > int(ds.get("NumberOfFrames") or 1):
        raise NotFoundError("there is no such frame")
    if media is not None and (how.transfer_syntax == ANY or how.transfer_syntax == one.transfer_syntax_uid):
        kind = "application/octet-stream" if how.octets else media
        told = f"{kind}; transfer-syntax={one.transfer_syntax_uid}"
        total = int(ds.get("NumberOfFrames") or 1)
        found = {n: _stored(ds, n - 1, total) for n in set(wanted)}  # before the answer begins
        return _multipart(((told, found[n]) for n in wanted), kind)
    for n in wanted:
        _check(partial(check_frame, ds, n - 1))
    told = f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    return _multipart(((told, _decoded(ds, n - 1)) for n in wanted), "application/octet-stream")


@router.get("/studies/{study}/series/{series}/instances/{instance}/rendered")
@router.get("/studies/{study}/series/{series}/instances/{instance}/thumbnail")
def rendered(request: Request, study: str, series: str, instance: str, window: str = "") -> Response:
    """Draw the first frame as PNG; `window` is "centre,width" as in PS3.18 8.3.5.1.4."""
    asked = _window(window) if window else None
    (one,) = _find(request, study, series, instance)
    return Response(slice_png(desk_of(request).spool, one.path, asked), media_type="image/png")


def _window(text: str) -> tuple[float, float]:
    found = _WINDOW.fullmatch(text)
    if found is None or float(found[2]) == 0:
        raise HTTPException(400, "A window is its centre and its width, which is above 0, with a comma between.")
    return float(found[1]), float(found[2])


def _find(request: Request, study: str, series: str, instance: str) -> list[StoredObject]:
    with desk_of(request).reading() as tx:
        stored = objects.find_objects(tx, study, series, instance)
    if not stored:
        raise NotFoundError("nothing of that name is stored here")
    given_out(request, "dicomweb", series or study, series_id=stored[0].series_id)
    return stored


def _read(desk: Desk, one: StoredObject) -> Dataset:
    path = desk.spool.path(one.path)
    try:
        return dcmread(path)
    except Exception as error:  # whatever the parser says of broken bytes
        raise SpoolError(f"The file cannot be read: {type(error).__name__}.") from error


def _file(desk: Desk, one: StoredObject, how: Accepted) -> bytes:
    if not _must_decode(one, how):
        return desk.spool.path(one.path).read_bytes()
    ds = _read(desk, one)
    try:
        ds.decompress(generate_instance_uid=False)
        out = BytesIO()
        ds.save_as(out, enforce_file_format=True)
    except Exception as error:
        raise SpoolError(f"The pixels cannot be decoded: {type(error).__name__}.") from error
    return out.getvalue()


def _stored(ds: Dataset, index: int, total: int) -> bytes:
    try:
        return get_frame(ds.PixelData, index, number_of_frames=total)
    except Exception as error:  # whatever the parser says of broken bytes
        raise SpoolError(f"The frame cannot be read: {type(error).__name__}.") from error


def _check(look: Callable[[], None]) -> None:
    """Refuse what cannot be decoded before the answer begins, which could not say it any more."""
    try:
        look()
    except GeometryError:
        raise
    except Exception as error:  # whatever the parser says of broken bytes
        raise SpoolError(f"The pixels cannot be decoded: {type(error).__name__}.") from error


def _must_decode(one: StoredObject, how: Accepted) -> bool:
    """Whether the client takes explicit little endian alone, and the object is compressed (PS3.18 8.7.3.5.2)."""
    return UID(one.transfer_syntax_uid).is_encapsulated and how.transfer_syntax in ("", str(ExplicitVRLittleEndian))


def _file_type(one: StoredObject, how: Accepted) -> str:
    syntax = ExplicitVRLittleEndian if _must_decode(one, how) else one.transfer_syntax_uid
    return f"application/dicom; transfer-syntax={syntax}"


def _attributes(desk: Desk, one: StoredObject) -> dict[str, Any]:
    try:
        ds = dcmread(desk.spool.path(one.path), stop_before_pixels=True)
        for element in list(ds):
            if element.VR in ("OB", "OW", "UN", "OF", "OD", "OL") and len(element.value or b"") > _MOST_INLINE:
                del ds[element.tag]
        found = ds.to_json_dict(suppress_invalid_tags=True)
    except SpoolError:
        raise
    except Exception as error:
        raise SpoolError(f"The file cannot be read: {type(error).__name__}.") from error
    found["00083002"] = {"vr": "UI", "Value": [one.transfer_syntax_uid]}  # Available Transfer Syntax UID
    return found


def _decoded(ds: Dataset, index: int) -> bytes:
    try:
        frame = one_frame(ds, index)
    except Exception as error:
        raise SpoolError(f"The pixels cannot be decoded: {type(error).__name__}.") from error
    if ds.BitsAllocated == 1:
        return np.packbits(frame.ravel(), bitorder="little").tobytes()
    return frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()


def _multipart(parts: Iterable[tuple[str, bytes]], kind: str) -> Response:
    boundary = uuid4().hex

    def body() -> Iterator[bytes]:
        for media, data in parts:
            yield f"--{boundary}\r\nContent-Type: {media}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            for start in range(0, len(data), _CHUNK):
                yield data[start : start + _CHUNK]
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return StreamingResponse(body(), media_type=f'multipart/related; type="{kind}"; boundary={boundary}')
