"""One job: its answer, its result, its deliveries, its times, and what may be done about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from pydicom import dcmread
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from dicom_node import operate
from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.admin.progress import progress_of
from dicom_node.admin.trail import viewed
from dicom_node.db import browse, pauses, story
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.domain.job import JobState
from dicom_node.domain.model import OutputKind
from dicom_node.domain.people import Right
from dicom_node.errors import NotFoundError, SpoolError
from dicom_node.explain import tell
from dicom_node.explain.words import images, registered
from dicom_node.picture import WINDOWS, Overlay, read_overlay
from dicom_node.results.text import ReportLine, as_text, report_lines

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])
_may_operate = Depends(needs(Right.OPERATE))

MOST_PICTURES = 24
DONE = {
    "scheduled": "A new job is scheduled: this one.",
    "canceled": "Canceled.",
    "resent": "The objects are on their way again.",
}


@dataclass(frozen=True, slots=True)
class Patient:
    """Who the images are of, as their file says: the database holds no names."""

    name: str = ""
    id: str = ""
    birth_date: str = ""
    sex: str = ""
    study_date: str = ""
    study_description: str = ""
    referring: str = ""


@router.get("/jobs/{job_id}")
def job(request: Request, job_id: str, done: str = "") -> Response:
    """Show a job; the first characters of its id are enough."""
    desk = desk_of(request)
    with desk.reading() as tx:
        one = find_job(tx, job_id)
        shown = _read(tx, desk, one)
        held = _held(one, set(pauses.paused(tx)))
    viewed(request, "job", series_id=one["series_id"], job_id=one["id"], study=one["study_instance_uid"])
    return page(request, "job.html", job=one, done=DONE.get(done, ""), held=held, **shown)


@router.post("/jobs/{job_id}/retry", dependencies=[_may_operate])
def retry(request: Request, job_id: str) -> Response:
    """Run it again."""
    desk, actor = desk_of(request), visitor_of(request).actor
    catalog, attempts = desk.catalog, desk.settings.work.max_attempts
    looked = operate.look(desk.reading, job_id, desk.spool)
    with desk.writing() as tx:
        new = operate.retry(tx, job_id, looked, catalog, attempts, desk.enqueuer, actor=actor)
    return RedirectResponse(f"/jobs/{new}?done=scheduled", 303)


@router.post("/jobs/{job_id}/rerun", dependencies=[_may_operate])
def rerun(request: Request, job_id: str, model: Annotated[str, Form(max_length=64)]) -> Response:
    """Run another model on its series."""
    desk, actor = desk_of(request), visitor_of(request).actor
    catalog, attempts = desk.catalog, desk.settings.work.max_attempts
    looked = operate.look(desk.reading, job_id, desk.spool)
    with desk.writing() as tx:
        new = operate.rerun(tx, job_id, model, looked, catalog, attempts, desk.enqueuer, actor=actor)
    return RedirectResponse(f"/jobs/{new}?done=scheduled", 303)


@router.post("/jobs/{job_id}/cancel", dependencies=[_may_operate])
def cancel(request: Request, job_id: str) -> Response:
    """Cancel it, and what of it waits to be sent or could not be sent."""
    with desk_of(request).writing() as tx:
        full, _, _ = operate.cancel(tx, job_id, actor=visitor_of(request).actor)
    return RedirectResponse(f"/jobs/{full}?done=canceled", 303)


@router.post("/jobs/{job_id}/resend", dependencies=[_may_operate])
def resend(request: Request, job_id: str, destination: Annotated[str, Form(max_length=64)] = "") -> Response:
    """Send its results again."""
    desk = desk_of(request)
    with desk.writing() as tx:
        operate.resend(tx, job_id, desk.enqueuer, destination=destination, actor=visitor_of(request).actor)
    return RedirectResponse(f"/jobs/{job_id}?done=resent", 303)


def _held(one: dict[str, Any], paused: set[str]) -> str:
    """Name the paused queue that a job, or what it made, waits in; empty when there is none."""
    if one["state"] == JobState.SCHEDULED and "jobs" in paused:
        return "jobs"
    waiting = [d["destination"] for d in one["deliveries"] if d["state"] == "waiting"]
    return next((name for name in waiting if f"deliver/{name}" in paused), "")


def find_job(tx: Connection, text: str) -> dict[str, Any]:
    """Read the job whose id is or begins with a text.

    Raises
    ------
    NotFoundError
        When there is none, or more than one.
    """
    found = list_jobs(tx, JobFilter(job=text.strip().lower(), limit=2)) if len(text) >= 4 else []
    if len(found) != 1:
        raise NotFoundError(f"there is no job {text}" if not found else f"several jobs start with {text}")
    return found[0]


def _read(tx: Connection, desk: Desk, one: dict[str, Any]) -> dict[str, Any]:
    slices = browse.slices_of(tx, one["id"])
    results = {result["kind"]: result for result in one["results"]}
    report = _report(desk, results)
    overlays = _overlays(desk, results)
    path = slices[0].path if slices else browse.first_path(tx, one["series_id"])
    return {
        "story": tell(tx, story.read_series(tx, one["series_id"])),
        "series": browse.read_series_row(tx, one["series_id"]),
        "attempts": browse.attempts_of(tx, one["id"]),
        "progress": progress_of(tx, [one]).get(one["id"]),
        "patient": _patient(desk, path),
        "slices": len(slices),
        "start": _start(slices, overlays),
        "windows": WINDOWS,
        "segments": _segments(results, overlays, slices),
        "marks": _marks(slices, overlays),
        "points": _points(results, slices),
        "of_scan": _of_scan(results),
        "pictures": _pictures(desk, results),
        "report": report,
        "report_text": as_text(report),
        "others": sorted(name for name in desk.catalog.models if name != one["model"]),
        "is_over": JobState(one["state"]).is_final,
        "gone": bool(results) and not report and not overlays,
    }


def _overlays(desk: Desk, results: dict[str, Any]) -> list[Overlay]:
    """Read the segmentations: one of a volume, or one for each of several single images."""
    try:
        segs = [result for name, result in results.items() if OutputKind.of(name) is OutputKind.SEG]
        return [read_overlay(desk.spool.path(seg["path"])) for seg in segs]
    except SpoolError:
        return []


def _report(desk: Desk, results: dict[str, Any]) -> tuple[ReportLine, ...]:
    try:
        return report_lines(desk.spool.path(results["sr"]["path"]).read_bytes()) if "sr" in results else ()
    except (SpoolError, OSError):
        return ()


def _of_scan(results: dict[str, Any]) -> dict[str, Any]:
    """What is said of the scan as a whole, and what was not run on it."""
    said: dict[str, Any] = next((result["summary"] for result in results.values()), {})
    lies = said.get("registration")
    return {
        "qualities": said.get("qualities", ()),
        "not_run": said.get("not_run", ()),
        "said": [*([registered(lies)] if lies else ()), *images(said)],
    }


def _pictures(desk: Desk, results: dict[str, Any]) -> int:
    """Count the frames of the secondary capture, as far as they are shown."""
    if "sc" not in results:
        return 0
    try:
        ds = dcmread(desk.spool.path(results["sc"]["path"]), specific_tags=["NumberOfFrames"], stop_before_pixels=True)
        return min(MOST_PICTURES, int(ds.get("NumberOfFrames") or 1))
    except Exception:  # noqa: BLE001 - the page says the rest
        return 0


def _patient(desk: Desk, path: str) -> Patient:
    try:
        ds = dcmread(desk.spool.path(path), stop_before_pixels=True) if path else None
    except Exception:  # noqa: BLE001 - whatever is wrong with the file: the page says the rest
        ds = None
    if ds is None:
        return Patient()
    words = {
        "name": "PatientName",
        "id": "PatientID",
        "birth_date": "PatientBirthDate",
        "sex": "PatientSex",
        "study_date": "StudyDate",
        "study_description": "StudyDescription",
        "referring": "ReferringPhysicianName",
    }
    patient = Patient(**{field: _text(ds, keyword) for field, keyword in words.items()})
    return replace(patient, name=_readable(patient.name), referring=_readable(patient.referring))


def _readable(person: str) -> str:
    """Write a person's name (PS3.5 6.2.1) as people do: family name, comma, the rest."""
    family, *given = [part for part in person.split("=")[0].split("^") if part.strip()] or [""]
    return f"{family}, {' '.join(given)}" if given else family


def _text(ds: Any, keyword: str) -> str:
    try:
        return str(ds.get(keyword, "") or "").strip()[:128]
    except (ValueError, TypeError, AttributeError):
        return ""


def _start(slices: list[Any], overlays: list[Overlay]) -> int:
    """Open the stack where most segments are, in the middle of them; without any in its middle."""
    marked = _marks(slices, overlays)
    return marked[len(marked) // 2] if marked else len(slices) // 2


def _marks(slices: list[Any], overlays: list[Overlay]) -> list[int]:
    return [n for n, one in enumerate(slices) if any(one.sop_instance_uid in each.frames for each in overlays)]


def _segments(results: dict[str, Any], overlays: list[Overlay], slices: list[Any]) -> list[dict[str, Any]]:
    """Join what was measured with how it is drawn, and where: ``at`` is the slice in the middle of it."""
    places = {one.sop_instance_uid: n for n, one in enumerate(slices)}
    summaries = (result["summary"] for result in results.values())
    summary: dict[str, Any] = next((one for one in summaries if one.get("segments")), {})
    found = []
    for segment in summary.get("segments", ()):
        own = slices[segment["image"] - 1].sop_instance_uid if 0 < segment.get("image", 0) <= len(slices) else ""
        overlay = next((each for each in overlays if not own or own in each.frames), None)
        drawn = {each.number: each for each in overlay.segments} if overlay else {}
        shown = drawn.get(segment.get("number", 0))
        marked = sorted(places[uid] for uid in shown.slices if uid in places) if shown else []
        at = marked[len(marked) // 2] if marked else segment["image"] - 1 if own else None
        found.append({**segment, "color": _hex(shown), "at": at})
    return found


def _points(results: dict[str, Any], slices: list[Any]) -> list[dict[str, Any]]:
    """Points that the model named, each with the slice next to it."""
    places = {one.sop_instance_uid: n for n, one in enumerate(slices)}
    said: dict[str, Any] = next((result["summary"] for result in results.values()), {})
    return [{**point, "at": places.get(point["image_uid"])} for point in said.get("points", ())]


def _hex(segment: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*segment.color_rgb) if segment else "none"
