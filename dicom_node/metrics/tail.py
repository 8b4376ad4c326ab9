"""Counters and histograms, kept by following the audit trail and the received instances."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy import Connection, Row

from dicom_node.db.numbers import events_between, instances_between, last_ids
from dicom_node.domain.audit import Event

BEHIND = timedelta(
    seconds=5
)  # what is younger waits for the next scrape: a slower transaction may still come before it
AT_ONCE = 5000
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400)


class Tail:
    """What happened since this process began."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._event_id: int | None = None
        self._instance_id = 0
        self._events = Counter("dicom_node_events", "Audit events.", ["event"], registry=registry)
        self._instances = Counter(
            "dicom_node_instances_received", "Instances stored.", ["source_ae"], registry=registry
        )
        self._bytes = Counter("dicom_node_bytes_received", "Bytes stored.", ["source_ae"], registry=registry)
        self._steps = _seconds("job_step", "Steps of attempts that completed.", ["model", "step"], registry)
        self._queued = _seconds("job_queue", "From the job made to its first attempt.", ["model"], registry)
        self._worked = _seconds("job_work", "From the first attempt to the job completed.", ["model"], registry)
        self._delivered = _seconds("delivery", "From the result made to its delivery.", ["destination"], registry)
        for event in Event:
            self._events.labels(event.value)  # a counter that is there from the start shows its first step

    def follow(self, tx: Connection, now: datetime) -> None:
        """Count what happened since the last call; the first call only notes where it stands."""
        if self._event_id is None:
            self._event_id, self._instance_id = last_ids(tx)
            return
        until = now - BEHIND
        while rows := events_between(tx, self._event_id, until, AT_ONCE):
            for row in rows:
                self._count(row)
            self._event_id = rows[-1].id
            if len(rows) < AT_ONCE:
                break
        self._instance_id, received = instances_between(tx, self._instance_id, until)
        for source_ae, count, size in received:
            self._instances.labels(source_ae).inc(count)
            self._bytes.labels(source_ae).inc(float(size))

    def _count(self, row: Row[Any]) -> None:
        self._events.labels(row.event).inc()
        if row.event == Event.JOB_COMPLETED and row.started_at and row.finished_at:
            self._queued.labels(row.model).observe((row.started_at - row.created_at).total_seconds())
            self._worked.labels(row.model).observe((row.finished_at - row.started_at).total_seconds())
            for step, seconds in (row.steps_s or {}).items():
                self._steps.labels(row.model, step).observe(seconds)
        if row.event == Event.DELIVERY_DONE and row.sent_at:
            self._delivered.labels(row.destination).observe((row.sent_at - row.sent_from).total_seconds())


def _seconds(name: str, text: str, labels: list[str], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"dicom_node_{name}_seconds", text, labels, buckets=_SECONDS, registry=registry)
