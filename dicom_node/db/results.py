"""The rows of result objects, written in the transaction that ends what made them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, insert, select

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.domain.delivery import DeliveryState, ResultObject
from dicom_node.domain.finding import Tracked
from dicom_node.domain.job import Document
from dicom_node.domain.uids import result_id

# Comprehensive 3D SR and Comprehensive SR
_REPORTS = ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33")


def write_results(tx: Connection, job_id: str, results: Sequence[ResultObject]) -> None:
    """Write the rows of what a job made; their bytes are synced already."""
    now = utc_now()
    model = select(t.job.c.model).where(t.job.c.id == job_id).scalar_subquery()
    for made in results:
        tx.execute(
            insert(t.result).values(
                id=result_id(job_id, made.name),
                job_id=job_id,
                model=model,
                kind=made.name,
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


def documents_before(tx: Connection, superseded: str | None) -> tuple[Document, ...]:
    """Read the reports that a new job's reports take the place of.

    Parameters
    ----------
    superseded : str, optional
        The id of the job before it.

    Returns
    -------
    tuple of Document
        Those of the last job of which any report was sent to anybody, or is being sent; a job that was canceled before
        it had one is passed over.
    """
    r, sent = t.result.c, (DeliveryState.DELIVERED.value, DeliveryState.SENDING.value)
    went = exists().where(t.delivery.c.result_id == r.id, t.delivery.c.state.in_(sent))
    while superseded is not None:
        of_job = select(r.kind, r.sop_class_uid, r.sop_instance_uid, r.series_instance_uid).where(
            r.job_id == superseded
        )
        reports = of_job.where(r.sop_class_uid.in_(_REPORTS), went).order_by(r.kind)
        if found := tx.execute(reports).all():
            return tuple(Document(**row._mapping) for row in found)
        superseded = tx.scalar(select(t.job.c.supersedes).where(t.job.c.id == superseded))
    return ()


def found_before(tx: Connection, superseded: str | None) -> tuple[Tracked, ...]:
    """Read what the job before a new one and those before it detected, each finding as it was seen last."""
    found: dict[str, Tracked] = {}
    while superseded is not None:
        summaries = tx.scalars(select(t.result.c.summary).where(t.result.c.job_id == superseded))
        for segment in next((s["segments"] for s in summaries if s.get("segments")), ()):
            if "extent_mm" in segment:
                low, high = (tuple(corner) for corner in segment["extent_mm"])
                output = segment["output"].partition("/")[0]
                found.setdefault(segment["tracking_uid"], Tracked(output, segment["tracking_uid"], (low, high)))
        superseded = tx.scalar(select(t.job.c.supersedes).where(t.job.c.id == superseded))
    return tuple(found.values())


def result_digests(tx: Connection, job_id: str) -> dict[str, str]:
    """SHA-256 of each object that a job made, by its name among them; also of those whose files were deleted since."""
    rows = tx.execute(select(t.result.c.kind, t.result.c.sha256).where(t.result.c.job_id == job_id))
    return {row.kind: row.sha256 for row in rows}
