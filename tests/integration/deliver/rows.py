"""A job with stored results, as the work stage leaves it, and a queue that remembers what was put in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from sqlalchemy import Connection, Engine, Row, insert, select

from dicom_node.db import tables as t
from dicom_node.db.deliveries import ALL_BINARY, NO_CHOICE, DeliveryQueue, create_deliveries
from dicom_node.db.engine import utc_now
from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.job import Job
from dicom_node.domain.model import OutputKind
from dicom_node.domain.uids import result_id
from tests.integration.deliver.peer import LABEL_MAP, write_object
from tests.integration.engine.rows import add_job

CLASS = {
    OutputKind.SEG: SegmentationStorage,
    OutputKind.SC: SecondaryCaptureImageStorage,
    OutputKind.CAPTURES: SecondaryCaptureImageStorage,
    OutputKind.OVERLAY: MultiFrameTrueColorSecondaryCaptureImageStorage,
    OutputKind.RTSTRUCT: RTStructureSetStorage,
    OutputKind.PDF: EncapsulatedPDFStorage,
    OutputKind.SR: Comprehensive3DSRStorage,
    OutputKind.SEG_LABELMAP: LABEL_MAP,
    OutputKind.SR_LABELMAP: Comprehensive3DSRStorage,
}
SYNTAX: Mapping[OutputKind, UID] = {OutputKind.SEG_LABELMAP: RLELossless}


class Queue:
    """What was enqueued: (delivery id, destination, attempt, delay in seconds)."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str, int, float]] = []

    def delivery(
        self, tx: Connection, delivery_id: str, destination: str, attempt: int, *, delay_s: float = 0.0
    ) -> None:
        self.runs.append((delivery_id, destination, attempt, delay_s))

    def take(self) -> list[tuple[str, int]]:
        """Empty it; give (delivery id, attempt)."""
        taken = [(delivery_id, attempt) for delivery_id, _, attempt, _ in self.runs]
        self.runs.clear()
        return taken


def add_results(
    tx: Connection,
    spool: Path,
    queue: DeliveryQueue,
    *,
    destinations: Sequence[str] = ("pacs",),
    kinds: Sequence[OutputKind] = (OutputKind.SR, OutputKind.SEG),
    rows: int = 64,
    wanted: Mapping[str, Collection[OutputKind]] = NO_CHOICE,
    encodings: Mapping[str, Encoding] = ALL_BINARY,
    not_as: Mapping[str, str] | None = None,
) -> str:
    """Store results of a job under `spool`, with their rows and deliveries; give the job's id."""
    job_id = add_job(tx, None, "lung", destinations=destinations)
    of_job = select(t.study.c.study_instance_uid).join(t.series, t.series.c.study_id == t.study.c.id)
    study: str = tx.execute(
        of_job.join(t.job, t.job.c.series_id == t.series.c.id).where(t.job.c.id == job_id)
    ).scalar_one()
    results = []
    for place, kind in enumerate(kinds):
        number = kinds[:place].count(kind) + 1
        path = spool / "results" / job_id / f"{kind}-{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds = write_object(path, CLASS[kind], syntax=SYNTAX.get(kind, ExplicitVRLittleEndian), rows=rows, study=study)
        raw = path.read_bytes()
        result = ResultObject(
            kind=kind,
            sop_class_uid=ds.SOPClassUID,
            sop_instance_uid=ds.SOPInstanceUID,
            series_instance_uid=ds.SeriesInstanceUID,
            transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
            path=str(path.relative_to(spool)),
            size=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(),
            summary={"not_as": dict(not_as)} if not_as else {},
            number=number,
        )
        columns = {name: getattr(result, name) for name in result.__slots__ if name not in ("number", "only_for")}
        columns |= {"id": result_id(job_id, result.name), "kind": result.name}
        tx.execute(insert(t.result).values(job_id=job_id, created_at=utc_now(), **columns))
        results.append(result)
    create_deliveries(tx, _job(job_id, destinations), results, queue, wanted, encodings)
    return job_id


def deliveries(engine: Engine, job_id: str, destination: str = "pacs") -> list[Row[Any]]:
    """The deliveries of a job to a destination, in the order in which they go, with what they carry."""
    d = t.delivery
    query = select(d, t.result.c.kind, t.result.c.sop_instance_uid).join(t.result, t.result.c.id == d.c.result_id)
    mine = (d.c.job_id == job_id, d.c.destination == destination)
    with engine.begin() as tx:
        return list(tx.execute(query.where(*mine).order_by(d.c.position)))


def proofs(engine: Engine, job_id: str, destination: str = "pacs") -> list[Row[Any]]:
    """The proofs of a job's deliveries to a destination, in the order in which they go."""
    d = t.delivery
    mine = (d.c.job_id == job_id, d.c.destination == destination)
    with engine.begin() as tx:
        joined = select(t.proof).join(d, d.c.id == t.proof.c.delivery_id)
        return list(tx.execute(joined.where(*mine).order_by(d.c.position)))


def attempts(engine: Engine, delivery_id: str) -> list[tuple[int, str | None, int | None]]:
    """(number, outcome, status) of each attempt at a delivery."""
    a = t.delivery_attempt
    with engine.begin() as tx:
        found = tx.execute(select(a).where(a.c.delivery_id == delivery_id).order_by(a.c.n))
        return [(row.n, row.outcome, row.status) for row in found]


def events(engine: Engine, delivery_id: str) -> list[str]:
    """What the audit trail says of a delivery."""
    e = t.audit_event
    with engine.begin() as tx:
        return list(tx.execute(select(e.c.event).where(e.c.delivery_id == delivery_id).order_by(e.c.id)).scalars())


def _job(job_id: str, destinations: Sequence[str]) -> Job:
    return Job(
        id=job_id,
        series_id=str(uuid4()),
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        series_revision=1,
        model="lung",
        model_version="1",
        rule="r",
        destinations=tuple(destinations),
        priority=10,
        attempt=1,
        max_attempts=3,
        created_at=utc_now(),
        instances=(),
    )
