"""A node's database and spool without its processes: a test takes each step of the spine itself, by the node's code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, SegmentationStorage
from sqlalchemy import Connection, Engine

from dicom_node import engine as job_engine
from dicom_node import operate
from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import deliveries, jobs, migrate
from dicom_node.db.engine import open_engine, reading, transaction
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.domain.delivery import Delivery, ResultObject, Sent
from dicom_node.domain.job import Failure, Job, Succeeded, Trace
from dicom_node.domain.model import Accepts, ModelCard, OutputKind
from dicom_node.domain.rule import Condition, Operator, Rule
from dicom_node.domain.uids import result_uid
from dicom_node.engine import Enqueuer
from dicom_node.errors import NodeError
from dicom_node.explain import explain
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.work.worker import Worker
from tests.stored import sender, store_files

CARD = ModelCard(
    "lung", "1", "Lungs", "test", "Marks lungs.", "untrained", Path("lung"), "d", "w", 60.0, Accepts(("CT",)), ()
)
RULES = (
    Rule(
        "chest",
        "lung",
        ("pacs",),
        (Condition("Modality", Operator.ONE_OF, ("CT",)), Condition("slices", Operator.AT_LEAST, (5,))),
    ),
)


@dataclass
class Operated:
    """See the module."""

    settings: Settings
    engine: Engine
    enqueuer: Enqueuer
    spool: Spool
    catalog: Catalog

    def receive(self, paths: Sequence[Path], calling: str = "CT1") -> None:
        """Store a series and let it become quiet; then it is assembled and routed."""
        store_files(self.engine, self.spool, paths, quiet_s=0.0, by=sender(calling))
        Assembler(self.settings, self.catalog, self.engine, self.enqueuer, self.spool).sweep()

    def claim(self, job_id: str) -> Job:
        with transaction(self.engine) as tx:
            job = jobs.claim_job(tx, job_id, "host/work-0/1", {"lung": "d"}, self.enqueuer)
        assert job is not None
        return job

    def complete(self, job_id: str) -> None:
        """One attempt that makes a SEG and an SR."""
        job = self.claim(job_id)
        with transaction(self.engine) as tx:
            assert jobs.finish_completed(tx, job, Succeeded(made_by(job.id), Trace({"infer": 1.5})), self.enqueuer)

    def fail(self, job_id: str, error: str = "The model lung crashed.") -> None:
        """One attempt that fails for good."""
        job = self.claim(job_id)
        with transaction(self.engine) as tx:
            assert jobs.finish_failed(tx, job, error, Failure.FAILED, self.enqueuer)

    def retry(self, job_id: str) -> str:
        """A person has a job run again."""
        looked = operate.look(partial(reading, self.engine), job_id, self.spool)
        with transaction(self.engine) as tx:
            return operate.retry(tx, job_id, looked, self.catalog, 3, self.enqueuer, actor="operator ann")

    def rerun(self, job_id: str, model: str) -> str:
        """A person has another model run on the series of a job."""
        looked = operate.look(partial(reading, self.engine), job_id, self.spool)
        with transaction(self.engine) as tx:
            return operate.rerun(tx, job_id, model, looked, self.catalog, 3, self.enqueuer, actor="operator ann")

    def report(self, job_id: str) -> None:
        """A worker takes up the report of a failed job."""
        Worker(self.settings, self.catalog, self.engine, self.enqueuer, self.spool).report_on(job_id, "host/work-0/1")

    def send(self, *outcomes: Sent | NodeError) -> None:
        """One attempt for each outcome, at the first delivery that is due; an error ends it, unless it says `retry`."""
        for outcome in outcomes:
            with transaction(self.engine) as tx:
                self._finish(tx, self._claim_first(tx), outcome)

    def _claim_first(self, tx: Connection) -> Delivery:
        waiting = [d["id"] for job in list_jobs(tx, JobFilter()) for d in job["deliveries"] if d["state"] == "waiting"]
        claims = (deliveries.claim_delivery(tx, one, "host/deliver-0/1", self.enqueuer) for one in waiting)
        return next(delivery for delivery in claims if delivery is not None)

    def _finish(self, tx: Connection, delivery: Delivery, outcome: Sent | NodeError) -> None:
        if isinstance(outcome, Sent):
            deliveries.finish_delivered(tx, delivery, outcome, self.enqueuer)
        elif outcome.retry:
            deliveries.finish_retry(tx, delivery, outcome, 0.0, self.enqueuer)
        else:
            deliveries.finish_failed(tx, delivery, outcome, self.enqueuer)

    def jobs(self, **which: Any) -> list[dict[str, Any]]:
        with transaction(self.engine) as tx:
            return list_jobs(tx, JobFilter(**which))

    def told(self, text: str) -> str:
        """What `explain` says, as one text."""
        with transaction(self.engine) as tx:
            stories = explain(tx, text)
        return "\n".join("\n".join([s.title, *(line.text for line in s.lines), s.answer]) for s in stories)


def made_by(job: str) -> tuple[ResultObject, ...]:
    """A SEG and an SR as rows know them; no bytes behind them."""
    kinds = {OutputKind.SEG: SegmentationStorage, OutputKind.SR: ComprehensiveSRStorage}
    summary = {"segments": [{"label": "Left lung", "volume_ml": 1883.3, "voxels": 10}]}
    return tuple(
        ResultObject(
            kind, sop_class, result_uid(job, kind.value), result_uid(job, f"{kind.value}/series"),
            ExplicitVRLittleEndian, f"results/{job}/{kind.value}.dcm", 1_000_000, "0" * 64, summary,
        )
        for kind, sop_class in kinds.items()
    )  # fmt: skip


@contextmanager
def operated(database_url: str, home: Path) -> Iterator[Operated]:
    """Open one on a new database."""
    settings = Settings.model_validate(
        {
            "file": home / "settings.toml",
            "database": {"url": database_url},
            "spool": {"path": home / "spool", "reserve_mib": 0},
            "assemble": {"quiet_s": 1e-6},
        }
    )
    migrate.upgrade(database_url)
    job_engine.migrate(database_url)
    spool = Spool(settings.spool.path, 0)
    spool.prepare()
    engine = open_engine(database_url)
    enqueuer = Enqueuer(engine)
    try:
        yield Operated(settings, engine, enqueuer, spool, Catalog(RULES, {"lung": CARD}, {}))
    finally:
        enqueuer.close()
        engine.dispose()
