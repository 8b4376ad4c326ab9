"""The inputs of a job that works on several series: which series fills which role of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from dicom_node.db import tables as t
from dicom_node.domain.job import JobInput, JobInstance

_n = t.job_input.c


@dataclass(frozen=True, slots=True)
class NewInput:
    """One series of a new job, as routing chose it. `slices` are those of its volume, in order."""

    role: str
    series_id: str
    series_revision: int
    slices: tuple[str, ...]


def write_inputs(tx: Connection, job_id: str, inputs: Sequence[NewInput]) -> None:
    """Write the inputs of a new job; the first is the series that the row of the job names."""
    for position, one in enumerate(inputs):
        row = {"role": one.role, "series_id": one.series_id, "series_revision": one.series_revision}
        tx.execute(insert(t.job_input).values(job_id=job_id, position=position, slices=list(one.slices), **row))


def read_inputs(tx: Connection, job_id: str) -> tuple[JobInput, ...]:
    """Read the inputs of a job, the first one first; none where it works on one series.

    An input has fewer instances than slices where some are no longer stored.
    """
    rows = tx.execute(
        select(t.job_input, t.series.c.series_instance_uid, t.study.c.study_instance_uid)
        .join(t.series, t.series.c.id == _n.series_id)
        .join(t.study, t.study.c.id == t.series.c.study_id)
        .where(_n.job_id == job_id)
        .order_by(_n.position)
    ).all()
    return tuple(
        JobInput(
            role=row.role,
            series_id=row.series_id,
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
            series_revision=row.series_revision,
            slices=len(row.slices),
            instances=read_slices(tx, row.series_id, row.series_revision, row.slices),
        )
        for row in rows
    )


def read_slices(tx: Connection, series_id: str, revision: int, slices: Sequence[str]) -> tuple[JobInstance, ...]:
    """Read the instances of some slices of a series, in their order, as far as they are still stored."""
    i = t.instance.c
    columns = (i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.path, i.digest, i.header)
    stored = tx.execute(select(*columns).where(i.series_id == series_id, i.revision <= revision))
    known = {found.sop_instance_uid: JobInstance(**found._mapping) for found in stored}
    return tuple(known[uid] for uid in slices if uid in known)
