"""The first page: what runs, what waits, what ended lately. It refreshes itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from dicom_node.admin.cursor import cursor_of, read_cursor
from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.admin.progress import progress_of
from dicom_node.admin.trail import viewed
from dicom_node.admin.worries import worries
from dicom_node.db import browse, overview
from dicom_node.db.engine import utc_now
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.domain.job import JobState
from dicom_node.domain.people import Right

DAY = timedelta(days=1)
_PAGE = 50
_GROUPS = {
    "": (),
    "open": (JobState.SCHEDULED.value, JobState.IN_PROGRESS.value),
    "failed": (JobState.FAILED.value,),
    "completed": (JobState.COMPLETED.value,),
    "canceled": (JobState.CANCELED.value,),
}

WITHOUT_JOB = "without"  # no state of a job: the series that there is none for

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the queue somebody wants to see."""

    show: str
    model: str
    after: str

    def link(self, **changes: Any) -> str:
        """Write the address of the same view with something changed."""
        asked = {"show": self.show, "model": self.model, "after": self.after, **changes}
        query = urlencode({key: value for key, value in asked.items() if value})
        return f"?{query}" if query else "?"


def wanted(
    show: Annotated[str, Query(max_length=20)] = "",
    model: Annotated[str, Query(max_length=64)] = "",
    after: Annotated[str, Query(max_length=400)] = "",
) -> Wanted:
    """Read the filter from the query; `after` is where the page before ended."""
    return Wanted(show if show in (*_GROUPS, WITHOUT_JOB) else "", model, after)


@router.get("/")
def queue(request: Request, view: Annotated[Wanted, Depends(wanted)]) -> Response:
    """Show the queue."""
    desk = desk_of(request)
    with desk.reading() as tx:
        shown = _read(tx, desk, view)
    viewed(request, "queue", jobs=len(shown["jobs"]))
    return page(request, "queue.html", **shown)


@router.get("/queue")
def rows(request: Request, view: Annotated[Wanted, Depends(wanted)]) -> Response:
    """Give only what changes, for the page to put in its place."""
    desk = desk_of(request)
    with desk.reading() as tx:
        return page(request, "_queue.html", **_read(tx, desk, view))


def _read(tx: Connection, desk: Desk, view: Wanted) -> dict[str, Any]:
    counts = overview.counts(tx, utc_now() - DAY)
    always = {
        "view": view,
        "counts": counts,
        "worries": worries(tx, desk, counts),
        "models": sorted(desk.catalog.models),
    }
    if view.show == WITHOUT_JOB:
        return always | _read_without_job(tx, view)
    after = read_cursor(view.after, datetime, int, str) if view.after else None
    goes_on = (after[0], after[1], after[2]) if after else None
    found = list_jobs(tx, JobFilter(states=_GROUPS[view.show], model=view.model, after=goes_on, limit=_PAGE + 1))
    jobs = found[:_PAGE]
    last = jobs[-1] if len(found) > _PAGE else None
    if not after:  # what runs stands above what waits, and that above what is over; each newest first
        order = {JobState.IN_PROGRESS.value: 0, JobState.SCHEDULED.value: 1}
        jobs = sorted(jobs, key=lambda job: order.get(job["state"], 2))
    return always | {
        "jobs": jobs,
        "without_job": (),
        "more": cursor_of(last["created_at"], last["run_no"], last["id"]) if last else "",
        "progress": progress_of(tx, jobs),
        "receiving": overview.receiving(tx, 8) if not after and view.show in ("", "open") else (),
    }


def _read_without_job(tx: Connection, view: Wanted) -> dict[str, Any]:
    after = browse.After(*read_cursor(view.after, datetime, str)) if view.after else None
    found = browse.list_without_job(tx, limit=_PAGE + 1, after=after)
    last = found[_PAGE - 1] if len(found) > _PAGE else None
    more = cursor_of(last.closed_at, last.id) if last else ""
    return {"jobs": (), "without_job": found[:_PAGE], "more": more, "progress": {}, "receiving": ()}
