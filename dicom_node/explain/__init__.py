"""The whole story of a series in time order, for a person: what came, what was decided and why, what went where.

Nothing here decides anything; it reads the rows of db/story.py and puts them into words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.uid import UID
from sqlalchemy import Connection, Row

from dicom_node.db import story
from dicom_node.domain.audit import Event
from dicom_node.domain.model import OutputKind
from dicom_node.errors import NotFoundError
from dicom_node.explain.answer import answer
from dicom_node.explain.events import event_lines, remedy
from dicom_node.explain.words import bare, clock_time, count, found, left_out, status_text, zone_name

__all__ = ["Line", "Story", "bare", "clock_time", "count", "explain", "found", "left_out", "tell", "zone_name"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """One series, or what was refused at the door. `answer` is one line: where the result is, or why there is none.

    `series_id` is our id of the series; empty for what was refused.
    """

    title: str
    lines: tuple[Line, ...]
    answer: str
    series_id: str = ""


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
        lines = tuple(Line(*said) for said in event_lines(reversed(refusals)))
        last = f"Nothing is stored: {bare(lines[-1].text)}; {remedy(refusals[0])}."
        return [Story(f"Nothing is stored of {text}, but it was seen", lines, last)]
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
    return Story(title, tuple(lines), answer(tx, rows), series.id)


def _lines(rows: story.SeriesRows) -> Iterator[Line]:
    for arrival in rows.arrivals:
        yield Line(arrival.first, _arrival(arrival))
    told = {attempt.error for attempt in (*rows.attempts, *rows.delivery_attempts)}
    yield from (Line(*said) for said in event_lines(event for event in rows.events if not _is_told(event, told)))
    jobs = {job.id: job for job in rows.jobs}
    for attempt in rows.attempts:
        yield from _job_attempt(jobs[attempt.job_id], attempt)
    for results in _by_kind(rows.results):
        yield Line(results[0].created_at, _result(results[0]) if len(results) == 1 else _results(results))
    deliveries = {delivery.id: delivery for delivery in rows.deliveries}
    for attempt in rows.delivery_attempts:
        yield from _delivery_attempt(deliveries[attempt.delivery_id], attempt)


_MOST_PRINTED = 5  # lines of what a model printed; all of it is on the page of the job

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


def _is_told(event: Row[Any], told: set[str]) -> bool:
    failed = event.event in (Event.JOB_FAILED, Event.DELIVERY_FAILED)
    return event.event in _TOLD_BY_ROWS or (failed and event.detail.get("error") in told)


def _arrival(row: Row[Any]) -> str:
    syntax = UID(row.transfer_syntax_uid).name
    took_s = (row.last - row.first).total_seconds()
    what = f"{count(row.instances, 'instance')} in {took_s:.1f} s, {syntax}"
    if row.id is None:
        return f"{what}, read from files"
    ended = f" ({row.end_reason})" if row.end_reason else ""
    if row.account:
        return f"STOW-RS from {row.account} ({row.peer_address}): {what}{ended}"
    software = f"; sent by {row.implementation}" if row.implementation else ""
    where = f" ({row.peer_address})" if row.peer_address else ""  # none has what came out of files
    return f"association from {row.calling_ae}{where} to {row.called_ae}: {what}{ended}{software}"


def _job_attempt(job: Row[Any], row: Row[Any]) -> Iterator[Line]:
    name = f"job {job.id[:8]} ({job.model} {job.model_version}), attempt {row.n} of {job.max_attempts}"
    yield Line(row.started_at, f"{name} started on {row.executor_id.split('/')[0]}")
    if row.ended_at is None:
        return
    took = f"{(row.ended_at - row.started_at).total_seconds():.1f} s"
    tried = [step for step in row.steps_s or {} if step.startswith("out of memory")]
    if row.outcome == "completed":
        steps = ", ".join(f"{step} {took_s:.1f}" for step, took_s in (row.steps_s or {}).items() if step not in tried)
        yield Line(row.ended_at, "\n".join([f"{name} completed in {took}" + (f" ({steps})" if steps else ""), *tried]))
        return
    words = {"retry": "failed, will retry", "lost": "lost with its worker"}.get(row.outcome, row.outcome or "ended")
    printed = [f"the model printed: {line}" for line in (row.printed or "").splitlines()[-_MOST_PRINTED:]]
    told = f"{name} {words} after {took}" + (f": {row.error}" if row.error else "")
    yield Line(row.ended_at, "\n".join([told, *tried, *printed]))


def _by_kind(rows: story.Rows) -> Iterator[list[Row[Any]]]:
    """Put what one job made of one kind together."""
    groups: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault((row.job_id, OutputKind.of(row.kind).value), []).append(row)
    yield from groups.values()


def _results(rows: list[Row[Any]]) -> str:
    size = sum(row.size for row in rows)
    return f"{OutputKind.of(rows[0].kind).upper()}, {count(len(rows), 'object')}, {size / 1e6:.2f} MB"


def _size(segment: Mapping[str, Any]) -> str:
    """Volume; of what was marked in a single image its area, where that is known."""
    if "area_mm2" not in segment:
        return f"{segment.get('volume_ml', 0):.0f} ml"
    return f"{segment['area_mm2']:.0f} mm2" if segment["area_mm2"] else ""


def _result(row: Row[Any]) -> str:
    text = f"{row.kind.upper()} {row.sop_instance_uid}, {row.size / 1e6:.2f} MB"
    summary = row.summary or {}
    segments = [s for s in summary.get("segments") or () if "detected" not in s]
    if segments:
        text += ": " + ", ".join(f"{s.get('label')} {_size(s)}".rstrip() for s in segments)
    if row.kind != "sr":
        return text  # one of the objects says the rest
    before = [f"takes the place of the report {uid}" for uid in (summary.get("replaces") or {}).values()]
    return "\n".join([text, *before, *filter(None, [found(summary)]), *left_out(summary)])


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
