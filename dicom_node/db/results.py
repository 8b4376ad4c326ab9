"""The rows of result objects, written in the transaction that ends what made them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.uids import result_id


def write_results(tx: Connection, job_id: str, results: Sequence[ResultObject]) -> None:
    """Write the rows of what a job made; their bytes are synced already."""
    now = utc_now()
    model = select(t.job.c.model).where(t.job.c.id == job_id).scalar_subquery()
    for made in results:
        tx.execute(
            insert(t.result).values(
                id=result_id(job_id, made.kind),
                job_id=job_id,
                model=model,
                kind=made.kind.value,
                sop_class_uid=made.sop_class_uid,
                sop_instance_uid=made.sop_instance_uid,
                series_instance_uid=made.series_instance_uid,
                transfer_syntax_uid=made.transfer_syntax_uid,
                path=made.path,
                size=made.size,
                sha256=made.sha256,
                summary=made.summary,
                created_at=now,
            )
        )
