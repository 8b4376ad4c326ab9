"""The pictures of a result page, and its objects to take away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import FileResponse, Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.trail import given_out
from dicom_node.db import browse
from dicom_node.domain.model import OutputKind
from dicom_node.domain.people import Right
from dicom_node.errors import NotFoundError
from dicom_node.picture import WINDOWS, overlay_png, read_overlay, slice_png

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@router.get("/jobs/{job_id}/slices/{number}.png")
def picture(request: Request, job_id: str, number: int, window: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Draw a slice of the job, counted from 0 in the order along the normal."""
    desk = desk_of(request)
    with desk.reading() as tx:
        slices = browse.slices_of(tx, job_id)
    if not 0 <= number < len(slices):
        raise NotFoundError("there is no such slice")
    given_out(request, "slices", job_id, job_id=job_id)
    return _png(slice_png(desk.spool, slices[number].path, WINDOWS.get(window)))


@router.get("/jobs/{job_id}/overlay/{number}.png")
def overlay(
    request: Request, job_id: str, number: int, segments: Annotated[str, Query(max_length=2000)] = ""
) -> Response:
    """Draw what the job marked on a slice; `segments` are the numbers to draw, with commas between."""
    desk = desk_of(request)
    with desk.reading() as tx:
        slices = browse.slices_of(tx, job_id)
        results = browse.results_of(tx, job_id)
    if not 0 <= number < len(slices):
        raise NotFoundError("there is no such overlay")
    uid = slices[number].sop_instance_uid
    segs = [desk.spool.path(one.path) for name, one in results.items() if OutputKind.of(name) is OutputKind.SEG]
    drawn = [one for one in map(read_overlay, segs) if uid in one.frames or len(segs) == 1]
    if not drawn:
        raise NotFoundError("there is no such overlay")
    shown = frozenset(int(n) for n in segments.split(",") if n.isdecimal()) if segments else None
    return _png(overlay_png(drawn[0], uid, shown))


@router.get("/jobs/{job_id}/picture/{number}.png")
def capture(request: Request, job_id: str, number: int) -> Response:
    """Draw a frame of the secondary capture that is sent, counted from 0."""
    desk = desk_of(request)
    with desk.reading() as tx:
        made = browse.results_of(tx, job_id).get("sc")
    if made is None or not 0 <= number < 10_000:
        raise NotFoundError("there is no such picture")
    given_out(request, "pictures", job_id, job_id=job_id)
    return _png(slice_png(desk.spool, made.path, None, frame=number))


@router.get("/jobs/{job_id}/{kind}.dcm")
def download(request: Request, job_id: str, kind: str) -> Response:
    """Give a result object as the file that is sent."""
    desk = desk_of(request)
    with desk.reading() as tx:
        result = browse.results_of(tx, job_id).get(kind)
    if result is None:
        raise NotFoundError("there is no such object")
    path = desk.spool.path(result.path)
    given_out(request, "object", result.sop_instance_uid, job_id=job_id)
    return FileResponse(path, media_type="application/dicom", filename=f"{result.sop_instance_uid}.dcm")


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png")
