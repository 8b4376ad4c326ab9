"""The whole story of a series in time order, for a person: what came, what was decided and why, what went where.

Nothing here decides anything; it reads the rows of db/story.py and puts them into words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.uid import UID
from sqlalchemy import Connection, Row

from dicom_node.db import story
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import Event
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import JobState
from dicom_node.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """One series, or what was refused at the door. `answer` is one line: where the result is, or why there is none."""

    title: str
    lines: tuple[Line, ...]
    answer: str


def explain(tx: Connection, text: str) -> list[Story]:
    """Tell what happened to what a person names.

    Parameters
    ----------
    text : str
        Accession number, patient ID, UID of a study, series or instance (sent to us or made by us), a job's id or its
        first characters; or the AE title of a peer that was rejected.

    Raises
    ------
    NotFoundError
        When nothing answers to it, with a hint.
    """
    text = text.strip()
    found = story.find_series(tx, text) if text else []
    if found:
        return [tell(tx, story.read_series(tx, series_id)) for series_id in found]
    if text and (refusals := story.find_refusals(tx, text)):
        lines = tuple(Line(row.at, _event(row)) for row in reversed(refusals))
        return [Story(f"Nothing is stored of {text}, but it was seen", lines, f"Nothing stored: {lines[-1].text}.")]
    raise NotFoundError(
        f"nothing is known of {text!r}: no accession number, patient ID, UID, job or rejected peer of that name. "
        "Is it the right node, and did the peer send to it? `dicom-node jobs` lists the latest jobs"
    )


def tell(tx: Connection, rows: story.SeriesRows) -> Story:
    """Put the rows of one series into words."""
    series = rows.series
    title = f"Series {series.series_instance_uid}: {series.modality or 'unknown modality'}"
    title += f", {series.instance_count} instances, study {series.study_instance_uid}"
    title += f", accession number {series.accession_number}" if series.accession_number else ""
    lines = sorted(_lines(rows), key=lambda line: line.at)
    return Story(title, tuple(lines), _answer(tx, rows))


def _lines(rows: story.SeriesRows) -> Iterator[Line]:
    for arrival in rows.arrivals:
        yield Line(arrival.first, _arrival(arrival))
    told = {attempt.error for attempt in (*rows.attempts, *rows.delivery_attempts)}
    for event in rows.events:
        failed = event.event in (Event.JOB_FAILED, Event.DELIVERY_FAILED)
        if event.event in _TOLD_BY_ROWS or (failed and event.detail.get("error") in told):
            continue
        yield Line(event.at, _event(event))
    jobs = {job.id: job for job in rows.jobs}
    for attempt in rows.attempts:
        yield from _job_attempt(jobs[attempt.job_id], attempt)
    for result in rows.results:
        yield Line(result.created_at, _result(result))
    deliveries = {delivery.id: delivery for delivery in rows.deliveries}
    for attempt in rows.delivery_attempts:
        yield from _delivery_attempt(deliveries[attempt.delivery_id], attempt)


# What job, attempt and delivery rows tell in better words.
_TOLD_BY_ROWS = {
    event.value
    for event in (
        Event.SERIES_STARTED,
        Event.JOB_STARTED,
        Event.JOB_COMPLETED,
        Event.JOB_RETRY,
        Event.DELIVERY_STARTED,
        Event.DELIVERY_DONE,
        Event.DELIVERY_RETRY,
    )
}


def _arrival(row: Row[Any]) -> str:
    syntax = UID(row.transfer_syntax_uid).name
    took_s = (row.last - row.first).total_seconds()
    what = f"{_count(row.instances, 'instance')} in {took_s:.1f} s, {syntax}"
    if row.id is None:
        return f"{what}, read from files"
    ended = f" ({row.end_reason})" if row.end_reason else ""
    return f"association from {row.calling_ae} ({row.peer_address}) to {row.called_ae}: {what}{ended}"


def _event(row: Row[Any]) -> str:
    """Say an audit event in a sentence; several reasons stand one below the other."""
    who = "" if row.actor == "node" else f" by {row.actor}"
    say = _SENTENCES.get(row.event)
    return (say(row, row.detail) if say else f"{row.event}{_details(row.detail)}") + who


def _complete(row: Row[Any], detail: dict[str, Any]) -> str:
    text = f"complete, revision {detail['revision']}: {detail['closed']}; {_count(detail['slices'], 'slice')}"
    if detail.get("slice_spacing_mm"):
        text += f", {detail['slice_spacing_mm']:g} mm apart"
    if detail.get("frame_of_reference"):
        text += f"; frame of reference: {detail['frame_of_reference']}"
    return "\n".join([text, *(f"set aside: {reason}" for reason in detail.get("set_aside", ()))])


def _routed(row: Row[Any], detail: dict[str, Any]) -> str:
    head = "rules were asked" if row.event == Event.SERIES_ROUTED else "no rule matched"
    return "\n".join([head, *detail.get("rules", ())])


def _scheduled(row: Row[Any], detail: dict[str, Any]) -> str:
    text = f"job {row.job_id[:8]} scheduled: {detail['model']} {detail['version']}"
    if "supersedes" in detail:
        return f"{text}, run {detail['run']}, after job {detail['supersedes'][:8]}"
    where = ", ".join(detail.get("destinations", ())) or "no destination"
    return f"{text}, rule {detail['rule']}, priority {detail['priority'].lower()}, results to {where}"


def _superseded(row: Row[Any], detail: dict[str, Any]) -> str:
    by = f" by job {detail['by'][:8]}" if detail.get("by") else ""
    return f"job {row.job_id[:8]} superseded{by}: revision {detail['revision']} of the series took its place"


def _rejected(row: Row[Any], detail: dict[str, Any]) -> str:
    peer = f"{detail.get('from')} ({detail.get('address')})"
    return f"association from {peer} to {detail.get('to')} rejected: {detail.get('reason')}"


def _refused(row: Row[Any], detail: dict[str, Any]) -> str:
    text = f"instance {detail.get('instance')} from {detail.get('from')} refused"
    return f"{text} with {detail.get('status')}: {detail.get('reason')}"


_SENTENCES: dict[str, Callable[[Row[Any], dict[str, Any]], str]] = {
    Event.SERIES_COMPLETE: _complete,
    Event.SERIES_REFUSED: lambda row, detail: f"refused: {detail['reason']}",
    Event.SERIES_ROUTED: _routed,
    Event.SERIES_UNMATCHED: _routed,
    Event.JOB_SCHEDULED: _scheduled,
    Event.JOB_SUPERSEDED: _superseded,
    Event.JOB_FAILED: lambda row, detail: f"job {row.job_id[:8]} failed: {detail['error']}",
    Event.JOB_CANCELED: lambda row, detail: f"job {row.job_id[:8]} canceled",
    Event.ASSOCIATION_REJECTED: _rejected,
    Event.INSTANCE_REFUSED: _refused,
}


def _details(detail: dict[str, Any]) -> str:
    known = [f"{key.replace('_', ' ')} {value}" for key, value in detail.items() if value not in (None, "", [], {})]
    return ": " + ", ".join(known) if known else ""


def _job_attempt(job: Row[Any], row: Row[Any]) -> Iterator[Line]:
    name = f"job {job.id[:8]} ({job.model} {job.model_version}), attempt {row.n} of {job.max_attempts}"
    yield Line(row.started_at, f"{name} started on {row.executor_id.split('/')[0]}")
    if row.ended_at is None:
        return
    took = f"{(row.ended_at - row.started_at).total_seconds():.1f} s"
    if row.outcome == "completed":
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in (row.steps_s or {}).items())
        yield Line(row.ended_at, f"{name} completed in {took}" + (f" ({steps})" if steps else ""))
        return
    words = {"retry": "failed, will retry", "lost": "lost with its worker"}.get(row.outcome, row.outcome or "ended")
    yield Line(row.ended_at, f"{name} {words} after {took}" + (f": {row.error}" if row.error else ""))


def _result(row: Row[Any]) -> str:
    text = f"{row.kind.upper()} {row.sop_instance_uid}, {row.size / 1e6:.2f} MB"
    segments = (row.summary or {}).get("segments") or []
    if segments:
        text += ": " + ", ".join(f"{s.get('label')} {s.get('volume_ml', 0):.0f} ml" for s in segments)
    return text


def _delivery_attempt(delivery: Row[Any], row: Row[Any]) -> Iterator[Line]:
    name = f"{delivery.kind.upper()} to {delivery.destination}, attempt {row.n}"
    if row.ended_at is None:
        yield Line(row.started_at, f"{name} is under way")
        return
    status = f" {status_text(row.status)}" if row.status is not None else ""
    error = f": {row.error}" if row.error else ""
    words = {"retry": "failed", "lost": "was lost with its sender"}.get(row.outcome, row.outcome or "ended")
    again = ""
    if row.outcome == "retry" and row.n == delivery.attempt and delivery.next_attempt_at:
        again = f"; next try at {clock_time(delivery.next_attempt_at)}"
    yield Line(row.ended_at, f"{name} {words}{status}{error}{again}")


def _answer(tx: Connection, rows: story.SeriesRows) -> str:
    series = rows.series
    if series.state == "receiving":
        return (
            "No result yet: instances may still come; the series counts as complete at "
            f"{clock_time(series.settle_at)} if nothing more does."
            + ("" if series.settle_at > utc_now() else " That is over: is `dicom-node assemble` running?")
        )
    newest = {job.model: job for job in rows.jobs if job.series_revision == series.revision}
    if not newest:
        return f"No result: {series.no_job_reason or series.refusal or 'no rule asked for one'}."
    return " ".join(_job_answer(tx, job, rows) for job in newest.values())


def _job_answer(tx: Connection, job: Row[Any], rows: story.SeriesRows) -> str:
    name = job.id[:8]
    if job.state == JobState.FAILED:
        again = f"; do `dicom-node retry {name}` when the cause is gone" if job.slices else ""
        return f"No result of {job.model}: {_bare(job.error or 'the job failed')}{again}."
    if job.state == JobState.CANCELED:
        return f"No result of {job.model}: the job was canceled; do `dicom-node retry {name}` to run it after all."
    if job.state == JobState.IN_PROGRESS:
        return f"No result of {job.model} yet: attempt {job.attempt} of {job.max_attempts} runs."
    if job.state == JobState.SCHEDULED:
        if not story.workers_alive(tx, "work"):
            return f"No result of {job.model} yet: no worker is alive; do `dicom-node serve` or `dicom-node work`."
        if job.next_attempt_at and job.next_attempt_at > utc_now():
            return f"No result of {job.model} yet: {job.error}; next attempt at {clock_time(job.next_attempt_at)}."
        return f"No result of {job.model} yet: the job waits for a free worker."
    return _delivery_answer(tx, job, [d for d in rows.deliveries if d.job_id == job.id])


def _delivery_answer(tx: Connection, job: Row[Any], deliveries: list[Row[Any]]) -> str:
    if not deliveries:
        return f"Result of {job.model} is in the spool; its rule names no destination."
    said = []
    for destination in dict.fromkeys(d.destination for d in deliveries):
        mine = [d for d in deliveries if d.destination == destination]
        said.append(_destination_answer(tx, job, destination, mine))
    return " ".join(said)


def _destination_answer(tx: Connection, job: Row[Any], destination: str, deliveries: list[Row[Any]]) -> str:
    states = {d.state for d in deliveries}
    if states == {DeliveryState.DELIVERED}:
        return f"Result delivered to {destination} at {clock_time(max(d.finished_at for d in deliveries))}."
    error = next((_bare(d.last_error) for d in deliveries if d.last_error and d.state != DeliveryState.DELIVERED), "")
    if states & {DeliveryState.WAITING, DeliveryState.SENDING}:
        times = [d.next_attempt_at for d in deliveries if d.next_attempt_at]
        if not story.workers_alive(tx, "deliver"):
            error = "no deliverer is alive; do `dicom-node serve` or `dicom-node deliver`"
        due = f"; next try at {clock_time(min(times))}" if times and error else ""
        return f"Result made, not yet delivered to {destination}" + (f": {error}{due}." if error else ".")
    what = "failed" if DeliveryState.FAILED in states else "was canceled"
    return (
        f"Result made, but its delivery to {destination} {what}{f': {error}' if error else ''}; "
        f"do `dicom-node resend {job.id[:8]}`."
    )


def status_text(status: int) -> str:
    """Say a C-STORE status in words (PS3.4 B.2.3, PS3.7 annex C)."""
    known = {
        0x0000: "Success",
        0x0111: "Duplicate SOP Instance",
        0x0122: "SOP Class not supported",
        0x0124: "Not authorized",
        0x0213: "Resource limitation",
    }
    ranges = {0xA7: "Out of resources", 0xA9: "Data set does not match SOP Class", 0xB0: "Warning"}
    word = known.get(status) or ranges.get(status >> 8) or ("Cannot understand" if status >> 12 == 0xC else "")
    return f"0x{status:04X}" + (f" {word}" if word else "")


def clock_time(at: datetime) -> str:
    """Say a time on the clock of this machine."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _bare(text: str) -> str:
    return text.strip().rstrip(".")
