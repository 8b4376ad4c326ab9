"""Audit events: written inside the transaction that does what they tell, so that neither exists without the other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import AuditEvent


def record(tx: Connection, *events: AuditEvent) -> None:
    """Append events to the audit trail, in the order given."""
    if events:
        tx.execute(insert(t.audit_event), [_row(e) for e in events])


def _row(event: AuditEvent) -> dict[str, Any]:
    return {
        "at": event.at or utc_now(),
        "event": event.event.value,
        "actor": event.actor,
        "association_id": event.association_id,
        "series_id": event.series_id,
        "job_id": event.job_id,
        "delivery_id": event.delivery_id,
        "detail": event.detail,
    }
