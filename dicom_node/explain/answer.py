"""The last line of a story: where the result is, or why there is none and what to do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from dicom_node.db import story
from dicom_node.db.engine import utc_now
from dicom_node.db.pauses import paused
from dicom_node.domain.audit import Event
from dicom_node.domain.choice import STAND_INS
from dicom_node.domain.completeness import why_lacking
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.encoding import plain
from dicom_node.domain.job import Failure, JobState, ReportState
from dicom_node.domain.model import OutputKind
from dicom_node.domain.proof import ProofState
from dicom_node.explain.words import bare, clock_time


def answer(tx: Connection, rows: story.SeriesRows) -> str:
    """Answer for the newest revision of a series."""
    series = rows.series
    if series.state == "receiving":
        return _receiving(series)
    of_others = [job for job in rows.jobs if job.role and job.replaced]  # by one that works on other series, maybe
    newest = {job.model: job for job in rows.jobs if job.on_revision == series.revision and job not in of_others}
    if not newest:
        why = series.no_job_reason or series.refusal or "no rule asked for one"
        return f"No result: {bare(why)}{_another_rule(series)}."
    return " ".join(_job_answer(tx, job, rows) for job in newest.values())


def _receiving(series: Row[Any]) -> str:
    known = series.instance_count, series.expected_count, series.told_count, series.told
    lacking = why_lacking(*known)
    until = series.patient_until if lacking and series.patient_until else series.settle_at
    waits = f"{lacking}, and the rest is waited for until" if lacking else "instances may still come"
    when = f" {clock_time(until)}." if lacking else f"; the series counts as complete at {clock_time(until)} if nothing"
    over = "" if until > utc_now() else " That is over: is `dicom-node assemble` running?"
    return f"No result yet: {waits}{when}{'' if lacking else ' more does.'}{over}"


def _job_answer(tx: Connection, job: Row[Any], rows: story.SeriesRows) -> str:
    name = job.id[:8]
    if job.state == JobState.FAILED:
        again = _after_failure(job, rows.series)
        told = _told(tx, job, [d for d in rows.deliveries if d.job_id == job.id])
        return f"No result of {job.model}: {bare(job.error or 'the job failed')}{again}. {told}".rstrip()
    if job.state == JobState.CANCELED:
        again = _gone(rows.series) or f"do `dicom-node retry {name}` to run it after all"
        return f"No result of {job.model}: the job was canceled{_by_whom(job, rows)}; {again}."
    if job.state == JobState.IN_PROGRESS:
        return f"No result of {job.model} yet: attempt {job.attempt} of {job.max_attempts} runs."
    if job.state == JobState.SCHEDULED:
        if not story.processes_alive(tx, "work"):
            return f"No result of {job.model} yet: no worker is alive; do `dicom-node serve` or `dicom-node work`."
        if held := _held(tx, "jobs"):
            return f"No result of {job.model} yet: {held}."
        if job.next_attempt_at and job.next_attempt_at > utc_now():
            return f"No result of {job.model} yet: {job.error}; next attempt at {clock_time(job.next_attempt_at)}."
        return f"No result of {job.model} yet: the job waits for a free worker."
    return _delivery_answer(tx, job, [d for d in rows.deliveries if d.job_id == job.id])


def _by_whom(job: Row[Any], rows: story.SeriesRows) -> str:
    """Say who canceled a job, and when; nothing where the audit trail does not say."""
    for event in rows.events:
        if event.event == Event.JOB_CANCELED and event.job_id == job.id:
            return f" at {clock_time(event.at)} by {event.actor}"
    return ""


def _another_rule(series: Row[Any]) -> str:
    """Say what to do about a series that no rule wanted; nothing about our own result that came back."""
    if not (series.no_job_reason or "").startswith(("no rule matched", "there is no rule")):
        return ""
    uid = series.accession_number or series.series_instance_uid
    return f"; if one should have, change it and {_gone(series) or f'do `dicom-node route {uid}`'}"


def _gone(series: Row[Any]) -> str:
    """Say what helps where retention took the images, so that nothing can run on them; empty while they are here."""
    if series.images_deleted_at is None:
        return ""
    return f"send the series again: its images were deleted at {clock_time(series.images_deleted_at)}"


def _after_failure(job: Row[Any], series: Row[Any]) -> str:
    if not job.slices and job.role:
        return "; send what is missing and it is looked at anew"
    if not job.slices and (series.verdict or {}).get("volumes"):
        uid = series.accession_number or series.series_instance_uid
        return f"; change the card, start the node again and do `dicom-node route {uid}`"
    if not job.slices:
        return "; send the series again as a whole and it is looked at anew: what was missing is taken in"
    gone = _gone(series)
    if job.failure == Failure.NOT_ELIGIBLE:
        other = "" if gone else ", or do `dicom-node retry --model` with another model"
        return f"; a retry would end alike: send a series that fits{other}"
    if gone:
        return f"; when the cause is gone, {gone}"
    return f"; do `dicom-node retry {job.id[:8]}` when the cause is gone"


def _told(tx: Connection, job: Row[Any], deliveries: list[Row[Any]]) -> str:
    """Say whether those who waited for the result of a failed job know that there is none."""
    if job.report == ReportState.MADE:
        told_last = sorted(deliveries, key=lambda d: d.state == DeliveryState.DELIVERED)
        by_name = {d.destination: d for d in told_last}
        return " ".join(_told_destination(tx, job, delivery) for delivery in by_name.values())
    if job.report == ReportState.DUE:
        alive = story.processes_alive(tx, "work")
        missing = "" if alive else ": no worker is alive; do `dicom-node serve` or `dicom-node work`"
        return f"{', '.join(job.report_to)} will be told when the report is written{missing}."
    if job.report == ReportState.FAILED:
        return "Nobody was told: the report could not be written."
    return "Its report was canceled." if job.report == ReportState.CANCELED else "Its rule wants no report of it."


def _told_destination(tx: Connection, job: Row[Any], delivery: Row[Any]) -> str:
    name, again = delivery.destination, f"do `dicom-node resend {job.id[:8]}`"
    if delivery.state == DeliveryState.DELIVERED:
        return f"{name} was told at {clock_time(delivery.finished_at)}."
    if delivery.state == DeliveryState.FAILED:
        return f"{name} could not be told: {bare(delivery.last_error or 'the delivery failed')}; {again}."
    if delivery.state == DeliveryState.CANCELED:
        return f"{name} was not told: the delivery was canceled; {again}."
    return f"{name} is not yet told{_why_not_yet(tx, [delivery])}."


def _delivery_answer(tx: Connection, job: Row[Any], deliveries: list[Row[Any]]) -> str:
    if not deliveries:
        return f"Result of {job.model} made; it is kept and not sent: rule {job.rule} is a shadow."
    said = []
    for destination in dict.fromkeys(d.destination for d in deliveries):
        mine = [d for d in deliveries if d.destination == destination]
        said.append(_destination_answer(tx, job, destination, mine))
    return " ".join(said)


def _destination_answer(tx: Connection, job: Row[Any], destination: str, deliveries: list[Row[Any]]) -> str:
    aside = [d for d in deliveries if _stood_aside(d, deliveries)]
    deliveries = [d for d in deliveries if d not in aside]
    states = {d.state for d in deliveries}
    if states == {DeliveryState.DELIVERED}:
        at = clock_time(max(d.finished_at for d in deliveries))
        return f"Result delivered to {destination} at {at}{_proof_answer(job, deliveries)}{_form(aside)}."
    for state, words in ((DeliveryState.FAILED, "failed"), (DeliveryState.CANCELED, "was canceled")):
        ended = [d for d in deliveries if d.state == state]
        if ended:
            kinds = _kinds(ended)
            why = f": {bare(ended[0].last_error)}" if ended[0].last_error and state == DeliveryState.FAILED else ""
            again = f"do `dicom-node resend {job.id[:8]}`"
            instead = _instead(ended, deliveries)
            return f"Result made, but delivery of {kinds} to {destination} {words}{why}{instead}; {again}."
    return f"Result made, not yet delivered to {destination}{_why_not_yet(tx, deliveries)}."


def _stood_aside(delivery: Row[Any], deliveries: list[Row[Any]]) -> bool:
    """Whether another form of the same object goes in place of this one, because the destination did not take it."""
    other = plain(OutputKind.of(delivery.kind))
    return (
        delivery.state == DeliveryState.CANCELED and other != delivery.kind and any(d.kind == other for d in deliveries)
    )


def _form(aside: list[Row[Any]]) -> str:
    """Say in which form an object went that was to go in another."""
    return "".join(f"; {plain(OutputKind.of(d.kind)).upper()} as BINARY: {bare(d.last_error or '')}" for d in aside)


def _instead(ended: list[Row[Any]], deliveries: list[Row[Any]]) -> str:
    """Say which object stands in for those that did not get there."""
    roles = [role for d in ended for role in STAND_INS.get(OutputKind.of(d.kind), ())]
    stand_ins = {kind for role in roles for kind in role}
    there = [d for d in deliveries if OutputKind.of(d.kind) in stand_ins and d.state == DeliveryState.DELIVERED]
    return f"; {_kinds(there)} is there in its place" if there else ""


def _kinds(deliveries: list[Row[Any]]) -> str:
    return " and ".join(dict.fromkeys(OutputKind.of(d.kind).upper() for d in deliveries))


def _proof_answer(job: Row[Any], deliveries: list[Row[Any]]) -> str:
    """Say whether the destination has proven that it has what it took, where it has to."""
    asked = [d for d in deliveries if d.proof is not None]
    if not asked:
        return ""
    for state, words in ((ProofState.FAILED, "is missing there"), (ProofState.NO_ANSWER, "is not proven")):
        ended = [d for d in asked if d.proof == state]
        if ended:
            kinds = _kinds(ended)
            again = f"; do `dicom-node resend {job.id[:8]}`" if state is ProofState.FAILED else ""
            return f", but {kinds} {words}: {bare(ended[0].proof_said or 'nobody knows why')}{again}"
    if all(d.proof == ProofState.PROVEN for d in asked):
        how = [
            word
            for word, column in (("committed to", "committed_at"), ("seen there", "seen_at"))
            if all(d._mapping[column] for d in asked)
        ]
        return f", {' and '.join(how)}" if how else ", and proven"
    waiting = next(d for d in asked if d.proof == ProofState.DUE)
    return ", not yet proven" + (f": {bare(waiting.proof_said)}" if waiting.proof_said else "")


def _why_not_yet(tx: Connection, deliveries: list[Row[Any]]) -> str:
    if not story.processes_alive(tx, "deliver"):
        return ": no deliverer is alive; do `dicom-node serve` or `dicom-node deliver`"
    if deliveries and (held := _held(tx, deliveries[0].destination)):
        return f": {held}"
    late = [d for d in deliveries if d.last_error and d.next_attempt_at]
    return f": {bare(late[0].last_error)}; next try at {clock_time(late[0].next_attempt_at)}" if late else ""


def _held(tx: Connection, queue: str) -> str:
    """Say who paused a queue (``jobs``, or a destination) and how it goes on; empty when it is not paused."""
    found = paused(tx).get(queue if queue == "jobs" else f"deliver/{queue}")
    if found is None:
        return ""
    why = f" ({found.reason})" if found.reason else ""
    return f"its queue is paused since {clock_time(found.at)} by {found.actor}{why}; do `dicom-node resume {queue}`"
