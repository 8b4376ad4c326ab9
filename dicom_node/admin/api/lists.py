"""Lists, page by page, and single rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from pydantic import AwareDatetime, BaseModel

from dicom_node.admin.api import shapes
from dicom_node.admin.api.version import Cursor, Limit, version_router
from dicom_node.admin.cursor import cursor_of, read_cursor
from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.pages.job import find_job
from dicom_node.admin.progress import progress_of
from dicom_node.admin.trail import viewed
from dicom_node.db import browse
from dicom_node.db.browse import After
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.domain.people import Right
from dicom_node.explain import explain

router = version_router()
S = TypeVar("S", bound=BaseModel)
Text = Annotated[str, Query(max_length=200)]
Since = Annotated[
    AwareDatetime | None, Query(description="Only what is newer; with an offset, as 2026-11-23T10:00:00Z.")
]


@router.get("/jobs", tags=["jobs"])
def jobs(
    request: Request,
    state: Annotated[shapes.JobStateName | None, Query()] = None,
    model: Text = "",
    patient: Text = "",
    accession: Text = "",
    study: Text = "",
    series: Text = "",
    since: Since = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> shapes.Page[shapes.Job]:
    """List jobs, newest first, with results and deliveries."""
    after = read_cursor(cursor, datetime, int, str) if cursor else None
    which = JobFilter(
        state=state or "",
        model=model,
        patient=patient,
        accession=accession,
        study=study,
        series=series,
        since=since,
        after=(after[0], after[1], after[2]) if after else None,
        limit=limit + 1,
    )
    with desk_of(request).reading() as tx:
        found = list_jobs(tx, which)
        progress = progress_of(tx, found[:limit])
    viewed(request, "api jobs", jobs=len(found[:limit]))
    items = [shapes.Job.model_validate({**job, "progress": progress.get(job["id"])}) for job in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return shapes.Page(items=items, next=cursor_of(last["created_at"], last["run_no"], last["id"]) if last else None)


@router.get("/jobs/{job}", tags=["jobs"])
def job(request: Request, job: str) -> shapes.Job:
    """Read a job; the first characters of its id are enough."""
    with desk_of(request).reading() as tx:
        found = find_job(tx, job)
        progress = progress_of(tx, [found]).get(found["id"])
    viewed(request, "api job", series_id=found["series_id"], job_id=found["id"], study=found["study_instance_uid"])
    return shapes.Job.model_validate({**found, "progress": progress})


@router.get("/explain", tags=["jobs"])
def story(request: Request, q: Annotated[str, Query(min_length=1, max_length=200)]) -> list[shapes.Story]:
    """Tell the whole story of what is named: accession number, patient ID, any UID, a job, a rejected peer."""
    with desk_of(request).reading() as tx:
        stories = explain(tx, q)
    viewed(request, "api explain", series=[one.series_id for one in stories][:10])
    return [shapes.Story.model_validate(one) for one in stories]


@router.get("/series", tags=["series"])
def all_series(
    request: Request,
    state: Annotated[str, Query(pattern="^(receiving|complete)?$")] = "",
    modality: Text = "",
    patient: Text = "",
    accession: Text = "",
    study: Text = "",
    series: Text = "",
    since: Since = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> shapes.Page[shapes.Series]:
    """List the series that were received, newest first."""
    equal = {"state": state, "modality": modality, "patient": patient, "accession": accession, "study": study}
    page = _page(
        request,
        browse.list_series,
        shapes.Series,
        "first_received_at",
        limit,
        cursor,
        **equal,
        series=series,
        since=since,
    )
    viewed(request, "api series", series=len(page.items))
    return page


@router.get("/series/{series}", tags=["series"])
def series(request: Request, series: str) -> shapes.Series:
    """Read a series by our id of it."""
    with desk_of(request).reading() as tx:
        row = browse.read_series_row(tx, series)
    viewed(request, "api series", series_id=series)
    return shapes.Series.model_validate(row)


@router.get("/results", tags=["results"])
def results(
    request: Request,
    kind: Annotated[str, Query(max_length=16)] = "",
    job: Text = "",
    study: Text = "",
    series: Annotated[str, Query(max_length=64, description="Series Instance UID of the source.")] = "",
    model: Text = "",
    since: Since = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> shapes.Page[shapes.Result]:
    """List the objects that jobs made, newest first. Their bytes come by WADO-RS."""
    equal = {"kind": kind, "job": job, "study": study, "series": series, "model": model, "since": since}
    page = _page(request, browse.list_results, shapes.Result, "created_at", limit, cursor, **equal)
    viewed(request, "api results", results=len(page.items))
    return page


@router.get("/deliveries", tags=["deliveries"])
def deliveries(
    request: Request,
    state: Annotated[shapes.DeliveryStateName | None, Query()] = None,
    destination: Text = "",
    job: Text = "",
    since: Since = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> shapes.Page[shapes.Delivery]:
    """List deliveries, newest first."""
    equal = {"state": state, "destination": destination, "job": job, "since": since}
    return _page(request, browse.list_deliveries, shapes.Delivery, "created_at", limit, cursor, **equal)


@router.get("/audit", tags=["audit"], dependencies=[Depends(needs(Right.ADMINISTER))])
def audit(
    request: Request,
    event: Text = "",
    actor: Text = "",
    series: Text = "",
    job: Text = "",
    since: Since = None,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> shapes.Page[shapes.Event]:
    """Read the audit trail, newest first. Needs the right to administer."""
    before = read_cursor(cursor, int)[0] if cursor else None
    with desk_of(request).reading() as tx:
        equal = {"event": event, "actor": actor, "series": series, "job": job, "since": since}
        found = browse.list_events(tx, limit=limit + 1, before=before, **equal)
    items = [shapes.Event.model_validate(row) for row in found[:limit]]
    return shapes.Page(items=items, next=cursor_of(found[limit - 1].id) if len(found) > limit else None)


def _page(
    request: Request,
    read: Callable[..., Sequence[Any]],
    shape: type[S],
    at: str,
    limit: int,
    cursor: str,
    **equal: Any,
) -> shapes.Page[S]:
    after = After(*read_cursor(cursor, datetime, str)) if cursor else None
    with desk_of(request).reading() as tx:
        found = read(tx, limit=limit + 1, after=after, **equal)
    last = found[limit - 1] if len(found) > limit else None
    items = [shape.model_validate(row) for row in found[:limit]]
    return shapes.Page(items=items, next=cursor_of(getattr(last, at), last.id) if last else None)
