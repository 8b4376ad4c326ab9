"""Rows that a job stands on, as routing would have written them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, Row, insert, select

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.engine import Enqueuer


def add_series(tx: Connection, paths: Sequence[str] = ("instances/00/a.dcm",), **header: Any) -> tuple[str, list[str]]:
    """Add a complete series of one instance for each path; give its id and the SOP Instance UIDs."""
    now = utc_now()
    study, series = str(uuid4()), str(uuid4())
    tx.execute(insert(t.study).values(id=study, study_instance_uid=uid(), first_received_at=now))
    tx.execute(
        insert(t.series).values(
            id=series,
            study_id=study,
            series_instance_uid=uid(),
            modality="CT",
            state="complete",
            revision=1,
            instance_count=len(paths),
            first_received_at=now,
            last_received_at=now,
            settle_at=now,
        )
    )
    uids = [uid() for _ in paths]
    for path, sop_instance_uid in zip(paths, uids, strict=True):
        tx.execute(
            insert(t.instance).values(
                series_id=series,
                sop_instance_uid=sop_instance_uid,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path=f"{path}.{series}" if path == "instances/00/a.dcm" else path,
                size=1,
                digest="0" * 64,
                received_at=now,
                revision=1,
                header={"Modality": "CT", **header},
            )
        )
    return series, uids


def add_job(
    tx: Connection,
    enqueuer: Enqueuer | None,
    model: str,
    *,
    series: tuple[str, list[str]] | None = None,
    priority: int = 10,
    max_attempts: int = 3,
    destinations: Sequence[str] = (),
    version: str = "1",
    run: int = 1,
) -> str:
    """Add a job on a series, and enqueue it if there is something to enqueue it with; give its id."""
    series_id, slices = series or add_series(tx)
    job_id = str(uuid4())
    tx.execute(
        insert(t.job).values(
            id=job_id,
            series_id=series_id,
            series_revision=1,
            rule="r",
            model=model,
            model_version=version,
            run_no=run,
            destinations=list(destinations),
            slices=slices,
            priority=priority,
            state="scheduled",
            max_attempts=max_attempts,
            created_at=utc_now(),
        )
    )
    if enqueuer is not None:
        enqueuer.job(tx, job_id, 1, priority=priority)
    return job_id


def job_row(engine: Engine, job_id: str) -> Row[Any]:
    """The job as it stands."""
    with engine.begin() as tx:
        return tx.execute(select(t.job).where(t.job.c.id == job_id)).one()


def attempts(engine: Engine, job_id: str) -> list[Row[Any]]:
    """The attempts at a job, in order."""
    a = t.job_attempt
    with engine.begin() as tx:
        return list(tx.execute(select(a).where(a.c.job_id == job_id).order_by(a.c.n)))


def count(engine: Engine, table: Any, *where: Any) -> int:
    """How many rows there are."""
    with engine.begin() as tx:
        return len(tx.execute(select(table).where(*where)).all())


def uid() -> str:
    """A UID that nobody else has."""
    return f"2.25.{uuid4().int}"
