"""New jobs: who gets their results, how urgent they are, and their way into the queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from dicom_node.db.audit import record
from dicom_node.db.jobs import JobQueue
from dicom_node.db.reports import ask_for_report
from dicom_node.db.routing import NewJob
from dicom_node.db.series import StoredInstance
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.header import texts
from dicom_node.domain.job import Priority
from dicom_node.domain.rule import Rule

_ASKED = {"STAT": Priority.STAT, "HIGH": Priority.HIGH}  # Requested Procedure Priority (0040,1003)


def destinations_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Name those who get the results of some rules, each once."""
    return tuple(dict.fromkeys(name for rule in rules for name in rule.destinations))


def told_by(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Name those who are told when there is no result."""
    return destinations_of(rule for rule in rules if rule.report_failures)


def asked_priority(first: StoredInstance) -> Priority:
    """Read how urgent the order is: it may raise the priority of a rule, never lower it."""
    words = [word.upper() for word in texts(first.header, "RequestedProcedurePriority")]
    return min((_ASKED[word] for word in words if word in _ASKED), default=Priority.LOW)


def schedule(tx: Connection, job: NewJob, enqueuer: JobQueue, volume: Mapping[str, str] | None = None) -> None:
    """Enqueue a new job; of one that can never run, the report. `volume` tells which one of its series it takes."""
    detail: dict[str, Any] = {"model": job.model, "version": job.model_version, "rule": job.rule}
    if job.inputs:
        detail["inputs"] = {one.role: one.series_id for one in job.inputs}
    if job.error:
        event = AuditEvent(
            Event.JOB_FAILED, series_id=job.series_id, job_id=job.id, detail={**detail, "error": job.error}
        )
        ask_for_report(tx, job.id, enqueuer)
    else:
        detail |= {"priority": Priority(job.priority).name, "destinations": list(job.destinations)}
        detail |= {"note": job.note} if job.note else {}
        detail |= {"volume": dict(volume)} if volume else {}
        event = AuditEvent(Event.JOB_SCHEDULED, series_id=job.series_id, job_id=job.id, detail=detail)
        enqueuer.job(tx, job.id, 1, priority=job.priority)
    record(tx, event)
