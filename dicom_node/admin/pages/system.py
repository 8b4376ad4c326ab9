"""The node itself: disk, queues, processes, database; and holding a queue."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy import make_url
from starlette.responses import RedirectResponse, Response

from dicom_node import operate
from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.guard import needs
from dicom_node.admin.pages.queue import DAY
from dicom_node.admin.paper import page
from dicom_node.admin.worries import worries
from dicom_node.db import overview
from dicom_node.db.engine import utc_now
from dicom_node.db.pauses import echoes, paused
from dicom_node.domain.people import Right
from dicom_node.metrics.gpu import read_gpus

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])
_SENDERS = 20


@router.get("/system")
def system(request: Request) -> Response:
    """Show how the node is."""
    desk = desk_of(request)
    disk = shutil.disk_usage(desk.spool.root)
    with desk.reading() as tx:
        counts = overview.counts(tx, utc_now() - DAY)
        processes = overview.processes(tx, utc_now() - DAY)
        held, answers = paused(tx), echoes(tx)
        senders = overview.senders(tx, _SENDERS)
        turned_away = overview.turned_away(tx, utc_now() - DAY, _SENDERS)
        told = worries(tx, desk, counts)
    return page(
        request,
        "system.html",
        worries=told,
        disk=disk,
        reserve=desk.spool.reserve_mib * 1024 * 1024,
        counts=counts,
        processes=processes,
        senders=senders,
        turned_away=turned_away,
        paused=held,
        gpus=read_gpus(),
        echoes={name: answers.get(name) for name in desk.catalog.destinations},
        queues=["jobs", *desk.catalog.destinations],
        database=make_url(desk.settings.database.url).get_backend_name(),
        settings=desk.settings,
        started_at=desk.started_at,
    )


@router.post("/queues/{name}/pause", dependencies=[Depends(needs(Right.OPERATE))])
def pause(request: Request, name: str, reason: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Hold a queue."""
    desk = desk_of(request)
    catalog = desk.catalog
    with desk.writing() as tx:
        operate.pause(tx, name, catalog, reason=reason.strip(), actor=visitor_of(request).actor)
    return RedirectResponse("/system", 303)


@router.post("/queues/{name}/resume", dependencies=[Depends(needs(Right.OPERATE))])
def resume(request: Request, name: str) -> Response:
    """Let a queue go on."""
    desk = desk_of(request)
    catalog = desk.catalog
    with desk.writing() as tx:
        operate.resume(tx, name, catalog, actor=visitor_of(request).actor)
    return RedirectResponse("/system", 303)
