"""A job taken for the length of a transaction: who writes of it next waits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from dicom_node.db import tables as t

_j = t.job


def lock_job(tx: Connection, job_id: str) -> Row[Any] | None:
    """Read a job with its UIDs, and keep other writers from it until the transaction ends."""
    return tx.execute(
        select(_j, t.series.c.series_instance_uid, t.study.c.study_instance_uid)
        .join(t.series, t.series.c.id == _j.c.series_id)
        .join(t.study, t.study.c.id == t.series.c.study_id)
        .where(_j.c.id == job_id)
        .with_for_update(of=_j)
    ).one_or_none()
