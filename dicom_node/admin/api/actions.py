"""What an operator may do. A request with an ``Idempotency-Key`` is done once, however often it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header, Request
from pydantic import BaseModel
from sqlalchemy import Connection

from dicom_node import operate
from dicom_node.admin.api import shapes
from dicom_node.admin.api.catalog import queue_as_it_is
from dicom_node.admin.api.version import version_router
from dicom_node.admin.credentials import digest
from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.pages.destinations import ask
from dicom_node.db import idempotency
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import Right

router = version_router(Right.OPERATE)
S = TypeVar("S", bound=BaseModel)
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=100,
        pattern=r"^[!-~]*$",
        description="Any text of yours; within 24 hours the same request under it is done once and answered alike.",
    ),
]


@router.post("/jobs/{job}/retry", status_code=202, tags=["jobs"])
def retry(request: Request, job: str, key: Key = "") -> shapes.Scheduled:
    """Run an ended job again, with the model as the node has it now."""
    desk, actor = desk_of(request), visitor_of(request).actor
    catalog, attempts = desk.catalog, desk.settings.work.max_attempts
    looked = operate.look(desk.reading, job, desk.spool)

    def act(tx: Connection) -> shapes.Scheduled:
        return shapes.Scheduled(job=operate.retry(tx, job, looked, catalog, attempts, desk.enqueuer, actor=actor))

    return once(request, key, None, act, shapes.Scheduled)


@router.post("/jobs/{job}/rerun", status_code=202, tags=["jobs"])
def rerun(request: Request, job: str, asked: shapes.Rerun, key: Key = "") -> shapes.Scheduled:
    """Run another model on the series of a job; results go where those of the job go."""
    desk, actor = desk_of(request), visitor_of(request).actor
    catalog, attempts = desk.catalog, desk.settings.work.max_attempts
    looked = operate.look(desk.reading, job, desk.spool)

    def act(tx: Connection) -> shapes.Scheduled:
        new = operate.rerun(tx, job, asked.model, looked, catalog, attempts, desk.enqueuer, actor=actor)
        return shapes.Scheduled(job=new)

    return once(request, key, asked, act, shapes.Scheduled)


@router.post("/jobs/{job}/cancel", tags=["jobs"])
def cancel(request: Request, job: str, key: Key = "") -> shapes.Canceled:
    """Cancel a job that has not ended, and what of it waits to be sent or could not be sent."""
    actor = visitor_of(request).actor

    def act(tx: Connection) -> shapes.Canceled:
        full, canceled, dropped = operate.cancel(tx, job, actor=actor)
        return shapes.Canceled(job=full, canceled=canceled, deliveries=dropped)

    return once(request, key, None, act, shapes.Canceled)


@router.post("/jobs/{job}/resend", status_code=202, tags=["jobs"])
def resend(request: Request, job: str, asked: shapes.Resend | None = None, key: Key = "") -> shapes.Resent:
    """Send the results of a job again, now."""
    desk, actor = desk_of(request), visitor_of(request).actor
    destination = asked.destination if asked else ""

    def act(tx: Connection) -> shapes.Resent:
        sent = operate.resend(tx, job, desk.enqueuer, destination=destination, actor=actor)
        return shapes.Resent(job=job, deliveries=list(sent))

    return once(request, key, asked, act, shapes.Resent)


@router.post("/series/{series}/route", status_code=202, tags=["series"])
def route(request: Request, series: str, key: Key = "") -> shapes.Routed:
    """Ask the rules again, as they are now, about series that have no job; by our id, UID or accession number."""
    actor = visitor_of(request).actor

    def act(tx: Connection) -> shapes.Routed:
        return shapes.Routed(series=operate.route(tx, series, actor=actor))

    return once(request, key, None, act, shapes.Routed)


@router.post("/destinations/{name}/echo", tags=["destinations"])
def echo(request: Request, name: str) -> shapes.Echo:
    """Ask a destination for an answer (C-ECHO); no answer is an answer, too."""
    took_s, error = ask(desk_of(request), name, visitor_of(request).actor)
    return shapes.Echo(at=utc_now(), took_s=took_s, error=error)


@router.post("/queues/{name}/pause", tags=["queues"])
def pause(request: Request, name: str, asked: shapes.Pause | None = None, key: Key = "") -> shapes.Queue:
    """Hold a queue: ``jobs``, or what is sent to a destination."""
    desk, actor = desk_of(request), visitor_of(request).actor
    catalog, reason = desk.catalog, asked.reason if asked else ""

    def act(tx: Connection) -> shapes.Queue:
        operate.pause(tx, name, catalog, reason=reason, actor=actor)
        return queue_as_it_is(tx, name)

    return once(request, key, asked, act, shapes.Queue)


@router.post("/queues/{name}/resume", tags=["queues"])
def resume(request: Request, name: str, key: Key = "") -> shapes.Queue:
    """Let a queue go on."""
    catalog, actor = desk_of(request).catalog, visitor_of(request).actor

    def act(tx: Connection) -> shapes.Queue:
        operate.resume(tx, name, catalog, actor=actor)
        return queue_as_it_is(tx, name)

    return once(request, key, None, act, shapes.Queue)


def once(request: Request, key: str, asked: BaseModel | None, act: Callable[[Connection], S], shape: type[S]) -> S:
    """Do it in one transaction with the keeping of its answer; or give the answer that was kept."""
    account = visitor_of(request).account_id
    told = digest(f"{request.method} {request.url.path} {asked.model_dump_json() if asked else ''}")
    with desk_of(request).writing() as tx:
        if not key:
            return act(tx)
        before = idempotency.begin(tx, account, key, told)
        if before is not None:
            return shape.model_validate(before)
        answer = act(tx)
        idempotency.finish(tx, account, key, answer.model_dump(mode="json"))
        return answer
