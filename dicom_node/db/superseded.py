"""The jobs whose place another one takes: what of them is still to be sent, and what destinations hold of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import Document, JobState
from dicom_node.domain.model import OutputKind

_j, _d, _r = t.job.c, t.delivery.c, t.result.c
_HELD = (DeliveryState.DELIVERED.value, DeliveryState.SENDING.value)


def call_back(tx: Connection, job_id: str) -> int:
    """Cancel what earlier jobs still have waiting to be sent: their results are outdated. How many there were."""
    waiting = (_d.job_id.in_(_earlier(tx, job_id)), _d.state == DeliveryState.WAITING.value)
    canceled = {"state": DeliveryState.CANCELED.value, "finished_at": utc_now(), "next_attempt_at": None}
    return tx.execute(update(t.delivery).where(*waiting).values(**canceled)).rowcount


def held_of_earlier(tx: Connection, job_id: str, destinations: Collection[str]) -> dict[str, list[Document]]:
    """Read what destinations hold of earlier jobs and have not rejected: sent, or being sent at this moment.

    Returns
    -------
    dict of str to list of Document
        By destination.
    """
    held: dict[str, list[Document]] = {name: [] for name in destinations}
    settled: set[str] = set()  # have rejected what came before the job that comes next
    for earlier in _earlier(tx, job_id):
        rejecting = set()
        for destination, state, document in _sent(tx, earlier, destinations):
            if OutputKind.of(document.kind) is OutputKind.REJECTION:
                rejecting |= {destination} if state == DeliveryState.DELIVERED.value else set()
            elif destination not in settled:
                held[destination].append(document)
        settled |= rejecting
    return held


def forget_proofs(tx: Connection, documents: Collection[str], destinations: Collection[str]) -> None:
    """Ask for no proof any more of objects (by SOP Instance UID) that destinations are told to reject: they hide them.

    Otherwise what is hidden would count as lost, and be sent again.
    """
    of_them = select(_d.id).join(t.result, _r.id == _d.result_id)
    rejected = of_them.where(_r.sop_instance_uid.in_(documents), _d.destination.in_(destinations))
    tx.execute(delete(t.proof).where(t.proof.c.delivery_id.in_(rejected), t.proof.c.ended_at.is_(None)))


def replaced_by(tx: Connection, job_id: str, since: datetime) -> str | None:
    """Find the job that has taken the place of another and was completed since then; None when there is none."""
    jobs = [job_id]
    while jobs:
        later = tx.execute(select(_j.id, _j.state, _j.finished_at).where(_j.supersedes.in_(jobs))).all()
        for job in later:
            if job.state == JobState.COMPLETED.value and job.finished_at > since:
                return str(job.id)
        jobs = [job.id for job in later]
    return None


def _earlier(tx: Connection, job_id: str) -> list[str]:
    """List the jobs whose place a job takes, the latest first.

    A new revision also takes the place of jobs beside its predecessor: a series that came again, called by another AE
    title, may have one of the same model for other destinations.
    """
    found: list[str] = []
    job = tx.execute(select(_j.series_revision, _j.supersedes).where(_j.id == job_id)).one_or_none()
    before = job.supersedes if job else None
    while job is not None and before is not None:
        found.append(before)
        this = tx.execute(select(t.job).where(_j.id == before)).one()
        alike = (_j.series_id == this.series_id, _j.model == this.model, _j.series_revision == this.series_revision)
        beside = select(_j.id).where(*alike, _j.run_no < this.run_no).order_by(_j.run_no.desc()).limit(1)
        is_older = this.series_revision != job.series_revision
        before = this.supersedes or (tx.scalar(beside) if is_older else None)
    return found


def _sent(tx: Connection, job_id: str, destinations: Collection[str]) -> Sequence[tuple[str, str, Document]]:
    document = (_r.kind, _r.sop_class_uid, _r.sop_instance_uid, _r.series_instance_uid)
    query = select(_d.destination, _d.state, *document).join(t.result, _r.id == _d.result_id)
    rows = tx.execute(
        query.where(_d.job_id == job_id, _d.destination.in_(destinations), _d.state.in_(_HELD)).order_by(_r.kind)
    )
    return [(to, state, Document(*named)) for to, state, *named in rows]
