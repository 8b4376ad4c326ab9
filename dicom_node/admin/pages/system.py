"""The node itself: disk, queues, processes, database; and holding a queue."""

from __future__ import annotations

import shutil
from datetime import timedelta
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
from dicom_node.db import overview
from dicom_node.db.engine import utc_now
from dicom_node.db.pauses import echoes, paused
from dicom_node.domain.people import Right
from dicom_node.metrics.gpu import read_gpus

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])
_WAITS_LONG = timedelta(minutes=30)
_SENDERS = 20
_NEEDED = ("work", "deliver")  # the roles that say that they live


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
    alive = {row.role for row in processes if row.state == "alive"}
    worries = [f"no process of the role {role} is alive" for role in _NEEDED if role not in alive]
    if desk.spool.is_full():
        worries.append("the spool's disk is down to its reserve: instances are refused with 0xA700")
    if counts.oldest_scheduled and utc_now() - counts.oldest_scheduled > _WAITS_LONG:
        worries.append("a job has been waiting for more than 30 minutes")
    if counts.undeliverable:
        worries.append(f"{counts.undeliverable} deliveries have failed for good")
    worries += [f"the rules were changed and are not taken: {problem}" for problem in desk.rulebook.problems]
    worries += [f"the queue {name} is paused" for name in held]
    silent = [name for name in desk.catalog.destinations if name in answers and answers[name].error]
    worries += [f"the destination {name} did not answer when it was last asked" for name in silent]
    return page(
        request,
        "system.html",
        worries=worries,
        disk=disk,
        reserve=desk.spool.reserve_mib * 1024 * 1024,
        counts=counts,
        processes=processes,
        senders=senders,
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
    with desk.writing() as tx:
        operate.pause(tx, name, desk.catalog, reason=reason.strip(), actor=visitor_of(request).actor)
    return RedirectResponse("/system", 303)


@router.post("/queues/{name}/resume", dependencies=[Depends(needs(Right.OPERATE))])
def resume(request: Request, name: str) -> Response:
    """Let a queue go on."""
    desk = desk_of(request)
    with desk.writing() as tx:
        operate.resume(tx, name, desk.catalog, actor=visitor_of(request).actor)
    return RedirectResponse("/system", 303)
