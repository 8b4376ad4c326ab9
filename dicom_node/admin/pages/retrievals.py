"""Studies asked back from archives: the batches, what became of each item, and a form for a new one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from dicom_node import operate
from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.admin.trail import viewed
from dicom_node.db import retrievals
from dicom_node.domain.people import Right
from dicom_node.domain.retrieval import BatchState, Kind, values_of
from dicom_node.errors import NotFoundError, RequestError

CHANGES = {"pause": BatchState.PAUSED, "resume": BatchState.RUNNING, "cancel": BatchState.CANCELED}
LONGEST_LIST = 1_500_000
_SHOWN, _MOST_ITEMS = 50, 1_000
_EMPTY = dict.fromkeys(("source", "values", "kind", "how", "called", "hours", "per_minute"), "")
_WORDS = {Kind.ACCESSION: "accession", Kind.STUDY: "study"}

router = APIRouter(prefix="/retrievals", include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@router.get("")
def batches(request: Request) -> Response:
    """List them, newest first, with the form."""
    return _page(request)


@router.get("/rows")
def rows(request: Request) -> Response:
    """Give only what changes of the list."""
    desk = desk_of(request)
    with desk.reading() as tx:
        return page(request, "_retrievals.html", batches=retrievals.list_batches(tx, _SHOWN))


@router.post("", dependencies=[Depends(needs(Right.OPERATE))])
def start(
    request: Request,
    source: Annotated[str, Form(max_length=64)],
    values: Annotated[str, Form(max_length=LONGEST_LIST)] = "",
    kind: Annotated[Kind, Form()] = Kind.ACCESSION,
    how: Annotated[str, Form(max_length=8)] = "",
    called: Annotated[str, Form(max_length=16)] = "",
    hours: Annotated[str, Form(max_length=16)] = "",
    per_minute: Annotated[str, Form(max_length=8)] = "",
) -> Response:
    """Make a batch of a pasted list."""
    desk = desk_of(request)
    items = [(kind, one) for one in values_of(values.splitlines(), _WORDS[kind])]
    try:
        rate = _rate(per_minute)
        how_and_when = partial(operate.retrieve, how=how, called=called, hours=hours.strip(), per_minute=rate)
        with desk.writing() as tx:
            batch, _ = how_and_when(tx, desk.settings, source, items, actor=visitor_of(request).actor)
    except (NotFoundError, RequestError) as error:
        written = {"source": source, "values": values, "kind": kind, "how": how, "called": called, "hours": hours}
        return _page(request, 422, problem=str(error), written={**written, "per_minute": per_minute})
    return RedirectResponse(f"/retrievals/{batch}", 303)


@router.get("/{batch}")
def one(request: Request, batch: str) -> Response:
    """Show a batch: how far it is, and why what failed did."""
    shown = _read(desk_of(request), batch)
    viewed(request, "retrieval", retrieval=shown["batch"]["id"], items=len(shown["items"]))
    return page(request, "retrieval.html", **shown)


@router.get("/{batch}/rows")
def items(request: Request, batch: str) -> Response:
    """Give only what changes of it."""
    return page(request, "_retrieval.html", **_read(desk_of(request), batch))


@router.post("/{batch}/{change}", dependencies=[Depends(needs(Right.OPERATE))])
def change(request: Request, batch: str, change: str) -> Response:
    """Hold it, let it go on, or end it."""
    if change not in CHANGES:
        raise NotFoundError("there is no such action")
    with desk_of(request).writing() as tx:
        full = retrievals.change_batch(tx, batch, CHANGES[change], actor=visitor_of(request).actor)
    return RedirectResponse(f"/retrievals/{full}", 303)


def _rate(text: str) -> float | None:
    try:
        rate = float(text) if text.strip() else None
    except ValueError:
        rate = 0.0
    if rate is not None and not 0 < rate < 1e6:
        raise RequestError(f"{text} is no number of studies a minute")
    return rate


def _read(desk: Desk, batch: str) -> dict[str, Any]:
    with desk.reading() as tx:
        found = retrievals.find_batch(tx, batch)
        told = retrievals.read_batch(tx, found.id)
        listed = retrievals.list_items(tx, found.id)
    items = [(item, retrievals.is_under_way(item)) for item in listed]
    items.sort(key=lambda one: 0 if one[1] else 1 if one[0].state == "failed" else 2)  # what is looked for comes first
    return {"batch": told, "items": items[:_MOST_ITEMS], "left": len(items[_MOST_ITEMS:])}


def _page(request: Request, status: int = 200, /, **shown: Any) -> Response:
    desk = desk_of(request)
    settings = desk.settings
    with desk.reading() as tx:
        found = retrievals.list_batches(tx, _SHOWN)
    sources = {name: operate.WAYS[one.kind] for name, one in settings.destinations.items() if one.kind in operate.WAYS}
    titles = settings.receive.called_ae or (settings.node.ae_title,)
    told = {
        "batches": found,
        "sources": sources,
        "titles": titles,
        "kinds": list(Kind),
        "problem": "",
        "written": _EMPTY,
    }
    return page(request, "retrievals.html", status, **{**told, "enabled": settings.retrieve.enabled, **shown})
