"""When a job takes the place of another, who was sent the older results is told to reject them, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.db.deliveries import claim_delivery, finish_retry
from dicom_node.db.profiles import write_profile
from dicom_node.deliver.sender import Deliverer
from dicom_node.domain.delivery import Destination, DimseDestination, FolderDestination
from dicom_node.domain.model import OutputKind
from dicom_node.domain.profile import EXPLICIT, OFFERS, Profile
from dicom_node.domain.proof import ProofPolicy, Verify
from dicom_node.domain.uids import AETitle
from dicom_node.errors import DeliveryError
from dicom_node.explain import explain
from dicom_node.work.worker import Worker
from tests.integration.deliver.rows import Queue
from tests.integration.engine.rows import add_job, job_row
from tests.integration.work.test_worker import BOTH, Bench, bench, database_url
from tests.peers.orthanc import Orthanc
from tests.unit.results.test_rejection import named

__all__ = ["bench", "database_url"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
SEEN = ProofPolicy(Verify.QUERY, after_s=60)


@dataclass
class Line:
    """Jobs one after the other, each in the place of the one before."""

    bench: Bench
    destinations: dict[str, Destination]
    jobs: list[str] = field(default_factory=list)
    worker: Worker | None = None

    def run(self) -> str:
        """Have the next job done; the model stays warm between them."""
        bench = self.bench
        if self.worker is None:
            card = bench.card()
            catalog = Catalog((), {card.name: card}, self.destinations)
            self.worker = Worker(bench.settings, catalog, bench.engine, bench.enqueuer, bench.spool)
        with bench.engine.begin() as tx:
            names, run = list(self.destinations), len(self.jobs) + 1
            job = add_job(tx, bench.enqueuer, "sides", series=bench.series, run=run, destinations=names)
            before = self.jobs[-1] if self.jobs else None
            tx.execute(update(t.job).where(t.job.c.id == job).values(supersedes=before))
        self.worker.work_on(job, "worker")
        assert job_row(bench.engine, job).state == "completed", job_row(bench.engine, job).error
        self.jobs.append(job)
        return job

    def deliver(self) -> None:
        """Send all that is due, until nothing is."""
        catalog = Catalog((), {}, self.destinations)
        deliverer = Deliverer(self.bench.settings, catalog, self.bench.engine, self.bench.enqueuer, self.bench.spool, 0)
        for _ in range(4):  # the objects of a job go one after the other
            for one in self.waiting():
                deliverer.deliver(one, "deliverer")
        assert self.waiting() == []

    def waiting(self) -> list[str]:
        d = t.delivery.c
        with self.bench.engine.begin() as tx:
            return list(tx.scalars(select(d.id).where(d.state == "waiting", d.next_attempt_at.is_not(None))))

    def sent(self, job: str) -> dict[str, list[str]]:
        """The names of the objects of a job that each destination has got."""
        d = t.delivery.c
        found: dict[str, list[str]] = {}
        with self.bench.engine.begin() as tx:
            query = select(d.destination, t.result.c.kind).join(t.result, t.result.c.id == d.result_id)
            for to, kind in tx.execute(query.where(d.job_id == job, d.state == "delivered").order_by(d.position)):
                found.setdefault(to, []).append(kind)
        return found

    def rejected(self, job: str, name: str = "rejection") -> set[str]:
        """What a document of a job rejects, read from its bytes."""
        r = t.result.c
        with self.bench.engine.begin() as tx:
            path = tx.scalars(select(r.path).where(r.job_id == job, r.kind == name)).one()
        return {uid for _, uid in named(dcmread(self.bench.spool.path(path)))}

    def uids(self, job: str, *kinds: str) -> set[str]:
        r = t.result.c
        with self.bench.engine.begin() as tx:
            return set(tx.scalars(select(r.sop_instance_uid).where(r.job_id == job, r.kind.in_(kinds))))


@pytest.fixture
def line(bench: Bench) -> Iterator[Line]:
    for name in ("out", "reports", "keeps"):
        (bench.folder / name).mkdir()
    with bench.engine.begin() as tx:
        study = dcmread(next((bench.folder / "ct").iterdir())).StudyInstanceUID
        tx.execute(update(t.study).values(study_instance_uid=study))
    made = Line(bench, {"folder": FolderDestination(name="folder", path=bench.folder / "out")})
    yield made
    if made.worker is not None:
        made.worker.close()


def test_orthanc_and_a_folder_reject_what_each_of_them_holds(line: Line, orthanc: Orthanc) -> None:
    where = {"host": "127.0.0.1", "port": orthanc.dicom_port, "ae_title": AETitle(orthanc.ae)}
    us = {"calling_ae": AETitle("AINODE"), "timeout_s": 10.0}
    line.destinations = {
        "pacs": DimseDestination(name="pacs", proof=SEEN, **where, **us),  # type: ignore[arg-type]
        "reports": FolderDestination(
            name="reports", path=line.bench.folder / "reports", objects=frozenset({OutputKind.SR})
        ),
        "keeps": FolderDestination(name="keeps", path=line.bench.folder / "keeps", reject_superseded=False),
        "folder": line.destinations["folder"],
    }
    accepted = {o.sop_class_uid: () if OutputKind.KOS in o.kinds else (EXPLICIT,) for o in OFFERS}
    probed = Profile(line.destinations["folder"].where, datetime(2026, 11, 27, tzinfo=UTC), accepted, (), "", "")
    with line.bench.engine.begin() as tx:
        write_profile(tx, "folder", probed)
    first = line.run()
    line.deliver()
    both = ["seg", "sr"]
    assert line.sent(first) == {"folder": both, "keeps": both, "pacs": both, "reports": ["sr"]}
    second = line.run()
    with line.bench.engine.begin() as tx:
        assert tx.execute(select(t.proof)).all() == [], "what is rejected need not be there any more"
    line.deliver()

    assert line.sent(second) == {
        "folder": both,
        "keeps": both,
        "pacs": [*both, "rejection"],
        "reports": ["sr", "rejection-2"],
    }
    with line.bench.engine.begin() as tx:
        of_second = select(t.result.c.summary).where(t.result.c.job_id == second)
        assert all(summary["segments"] for summary in tx.scalars(of_second)), "a list shows any of them"
    held = [dcmread(BytesIO(data)) for data in orthanc.files()]
    assert sorted(ds.Modality for ds in held) == ["KO", "SEG", "SEG", "SR", "SR"]
    [note] = [ds for ds in held if ds.Modality == "KO"]
    assert {uid for _, uid in named(note)} == line.uids(first, "seg", "sr")
    assert line.rejected(second, "rejection-2") == line.uids(first, "sr")
    with line.bench.engine.begin() as tx:
        [story] = explain(tx, second)
    said = [text for entry in story.lines for text in entry.text.splitlines() if "outdated" in text]
    assert sorted(said) == [
        "folder is not told to reject 2 outdated objects: it takes no key object selection, as it said on 2026-11-27",
        "keeps is not told to reject 2 outdated objects: as its settings say",
        "pacs is told to reject 2 outdated objects",
        "reports is told to reject 1 outdated object",
    ]


@BOTH
def test_each_job_rejects_what_is_left_of_all_before_it_and_calls_back_what_waits(line: Line) -> None:
    first = line.run()
    line.deliver()
    second, queue = line.run(), Queue()
    [due] = line.waiting()
    with line.bench.engine.begin() as tx:
        taken = claim_delivery(tx, due, "a slow sender", queue)
    assert taken is not None
    third = line.run()
    assert line.rejected(third) == line.uids(first, "seg", "sr") | line.uids(second, "seg"), "it may have got there"
    with line.bench.engine.begin() as tx:
        assert finish_retry(tx, taken, DeliveryError("it hung up", retry=True), 1.0, queue)
        row = tx.execute(select(t.delivery).where(t.delivery.c.id == due)).one()
    assert row.state == "canceled"
    assert row.last_error == f"it hung up; not tried again: job {third} has taken its place"
    assert queue.runs == []
    line.deliver()
    assert line.sent(second) == {}
    fourth = line.run()
    line.deliver()
    assert line.rejected(fourth) == line.uids(third, "seg", "sr"), "neither what was rejected, nor who rejected it"
    assert line.sent(fourth) == {"folder": ["seg", "sr", "rejection"]}
