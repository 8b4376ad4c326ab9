"""Where results go, what waits for it, and whether it answers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.guard import needs
from dicom_node.admin.pages.models import WEEK
from dicom_node.admin.paper import page
from dicom_node.db import browse, overview
from dicom_node.db.engine import utc_now
from dicom_node.db.pauses import echoes, keep_echo, paused
from dicom_node.db.profiles import read_profiles
from dicom_node.domain.choice import instead_of
from dicom_node.domain.people import Right
from dicom_node.engine import queue_of
from dicom_node.errors import DeliveryError, NotFoundError

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@router.get("/destinations")
def destinations(request: Request) -> Response:
    """List them."""
    desk = desk_of(request)
    with desk.reading() as tx:
        held, answers, profiles = paused(tx), echoes(tx), read_profiles(tx)
        counted, late = overview.by_destination(tx, utc_now() - WEEK), overview.late(tx)
        failed = {
            name: browse.list_deliveries(tx, limit=5, destination=name, state="failed")
            for name, numbers in counted.items()
            if numbers.get("failed")
        }
    known = desk.catalog.destinations.values()
    unknown = sorted(set(counted) - set(desk.catalog.destinations))
    return page(
        request,
        "destinations.html",
        destinations=known,
        unknown=unknown,
        counted=counted,
        echoes=answers,
        profiles=profiles,
        failed=failed,
        late=late,
        instead_of=instead_of,
        paused={name: held[queue_of(name)] for name in desk.catalog.destinations if queue_of(name) in held},
    )


@router.post("/destinations/{name}/echo", dependencies=[Depends(needs(Right.OPERATE))])
def echo(request: Request, name: str) -> Response:
    """Ask it for an answer now."""
    ask(desk_of(request), name, visitor_of(request).actor)
    return RedirectResponse("/destinations", 303)


def ask(desk: Desk, name: str, actor: str) -> tuple[float | None, str | None]:
    """C-ECHO a destination and keep what it answered: after how many seconds, or the error."""
    destination = desk.catalog.destinations.get(name)
    if destination is None:
        raise NotFoundError("there is no such destination")
    took_s: float | None = None
    error: str | None = None
    try:
        took_s = desk.echo(destination)
    except DeliveryError as failed:
        error = str(failed)
    with desk.writing() as tx:
        keep_echo(tx, name, took_s, error, actor=actor)
    return took_s, error
