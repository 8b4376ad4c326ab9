"""Who has what we made: of each result object and destination, what was answered, committed to and seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from dicom_node.db import tables as t

_d, _p, _r = t.delivery, t.proof, t.result

PROOF = (
    _p.c.state.label("proof"),
    _p.c.committed_at,
    _p.c.seen_at,
    _p.c.resent,
    _p.c.said.label("proof_said"),
    _p.c.since.label("taken_at"),
)


def with_proof(query: Select[Any]) -> Select[Any]:
    """Let a query over deliveries give their proof, too; null where none is wanted."""
    return query.add_columns(*PROOF).outerjoin(_p, _p.c.delivery_id == _d.c.id)


def list_holders(tx: Connection, series_ids: Sequence[str]) -> list[dict[str, Any]]:
    """List every result object of some series with every destination, in the order in which they were made.

    Returns
    -------
    list of dict
        As ``dicom-node who-has --json`` prints them. Times are aware datetimes; ``proof`` is None where none is wanted.
    """
    query = (
        select(
            _r.c.job_id,
            _r.c.kind,
            _r.c.sop_instance_uid,
            _r.c.sop_class_uid,
            _r.c.path,
            _d.c.destination,
            _d.c.state,
            _d.c.finished_at,
            _d.c.last_status,
            _d.c.last_error,
        )
        .select_from(_r)
        .join(t.job, t.job.c.id == _r.c.job_id)
        .outerjoin(_d, _d.c.result_id == _r.c.id)
        .where(t.job.c.series_id.in_(series_ids))
        .order_by(_r.c.created_at, _r.c.job_id, _d.c.position, _r.c.kind, _d.c.destination)
    )
    return [dict(row._mapping) for row in tx.execute(with_proof(query))]
