"""From whatever is at hand to the story: accession number, patient ID, any UID, a job, a peer that was turned away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection, Row
from starlette.responses import RedirectResponse, Response

from dicom_node import operate
from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.admin.trail import viewed
from dicom_node.db import browse, story
from dicom_node.domain.people import Right
from dicom_node.errors import NotFoundError
from dicom_node.explain import Story, explain, tell

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@dataclass(frozen=True, slots=True)
class SeriesStory:
    """A series as its page and the list of a study show it."""

    row: Row[Any]
    story: Story
    jobs: tuple[Row[Any], ...]


@router.get("/find")
def find(request: Request, q: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Look for it; one hit is shown at once."""
    text = q.strip()
    if not text:
        return page(request, "find.html", q="", stories=(), refused=(), missing="")
    with desk_of(request).reading() as tx:
        found = story.find_series(tx, text)
        studies = {browse.read_series_row(tx, one).study_instance_uid for one in found}
        told = [_story(tx, one) for one in found[:50]] if len(studies) > 1 else []
        refused: list[Story] = []
        missing = ""
        if not found:
            try:
                refused = explain(tx, text)
            except NotFoundError as error:
                missing = str(error)
    if len(found) == 1:
        return RedirectResponse(f"/series/{found[0]}", 303)
    if len(studies) == 1:
        return RedirectResponse(f"/studies/{studies.pop()}", 303)
    viewed(request, "search", series=found[:10])
    return page(request, "find.html", q=text, stories=told, refused=refused, missing=missing)


@router.get("/studies/{study_instance_uid}")
def study(request: Request, study_instance_uid: str) -> Response:
    """Show the series of a study, each with its answer."""
    with desk_of(request).reading() as tx:
        rows = browse.series_of_study(tx, study_instance_uid)
        stories = [_story(tx, row.id) for row in rows]
    viewed(request, "study", study=study_instance_uid)
    return page(request, "study.html", stories=stories, study=rows[0])


@router.get("/series/{series_id}")
def series(request: Request, series_id: str) -> Response:
    """Tell the whole story of a series."""
    with desk_of(request).reading() as tx:
        told = _story(tx, series_id)
    viewed(request, "series", series_id=series_id, study=told.row.study_instance_uid)
    return page(request, "series.html", one=told)


@router.post("/series/{series_id}/route", dependencies=[Depends(needs(Right.OPERATE))])
def route(request: Request, series_id: str) -> Response:
    """Ask the rules again about a series without a job."""
    with desk_of(request).writing() as tx:
        uid = browse.read_series_row(tx, series_id).series_instance_uid
        operate.route(tx, uid, actor=visitor_of(request).actor)
    return RedirectResponse(f"/series/{series_id}", 303)


def _story(tx: Connection, series_id: str) -> SeriesStory:
    row = browse.read_series_row(tx, series_id)
    jobs = browse.jobs_of_series(tx, [series_id])
    return SeriesStory(row, tell(tx, story.read_series(tx, series_id)), tuple(jobs))
