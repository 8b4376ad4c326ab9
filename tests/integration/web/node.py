"""A node with something to show: a real chest CT that the real model ran on, and the troubles that a day brings."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydicom import Dataset
from sqlalchemy import Engine, delete
from starlette.testclient import TestClient

from dicom_node import engine as job_engine
from dicom_node import operate
from dicom_node.admin.credentials import TOKEN_PREFIX, digest, draw_secret, hash_password
from dicom_node.admin.desk import Desk
from dicom_node.admin.server import serve_site
from dicom_node.admin.site import build_site
from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog, load_catalog
from dicom_node.db import accounts, deliveries, jobs, migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.db.nodes import register_node
from dicom_node.deliver import SENDERS
from dicom_node.domain.delivery import Destination, Sent
from dicom_node.domain.job import Failure, Succeeded, Trace
from dicom_node.domain.people import Right, Role
from dicom_node.engine import Enqueuer
from dicom_node.errors import DeliveryError
from dicom_node.rulebook import Rulebook
from dicom_node.settings import Settings, load_settings
from dicom_node.spool import Spool
from dicom_node.work.worker import Worker
from tests.ct import small_ct
from tests.integration.operated import made_by
from tests.node import free_port, wait_for
from tests.stored import sender, store_files

PASSWORD = "correct horse battery"
PICTURES = os.environ.get("PICTURES", "")  # a folder for the pictures of docs/
MODEL = "chest_ct" if PICTURES else "lung_ct"  # pictures show the whole pack, on the whole scan
SETTINGS = """\
[node]
ae_title = "AINODE"
[spool]
reserve_mib = 0
[assemble]
quiet_s = 0.000001
[work]
device = "cpu"
[destinations.pacs]
host = "127.0.0.1"
port = 9
ae_title = "PACS"
timeout_s = 1
"""
RULE = f"""\
model = "{MODEL}"
destinations = ["pacs"]

[when]
Modality = "CT"
slices = {{ at_least = 10 }}
"""


def echo(destination: Destination) -> float:
    """Ask a destination as the node's own web process does."""
    return SENDERS[destination.kind].echo(destination)


@dataclass
class WebNode:
    """Database, spool and catalog of a node, and its site."""

    settings: Settings
    engine: Engine
    enqueuer: Enqueuer
    spool: Spool
    catalog: Catalog
    site: FastAPI

    def desk(self, settings: Settings) -> Desk:
        """What the site works with, under these settings."""
        return Desk(settings, Rulebook(settings, self.catalog), self.engine, self.enqueuer, self.spool, echo)

    def receive(self, paths: Sequence[Path], calling: str = "CT1") -> None:
        """Store a series; it is assembled and routed at once."""
        store_files(self.engine, self.spool, paths, quiet_s=0.0, by=sender(calling, f"{calling:a<36}"))
        self.sweep()

    def sweep(self) -> None:
        Assembler(self.settings, self.catalog, self.engine, self.enqueuer, self.spool).sweep()

    def work(self, job_id: str) -> None:
        """Run the real model."""
        worker = Worker(self.settings, self.catalog, self.engine, self.enqueuer, self.spool)
        try:
            worker.work_on(job_id, "host/work-0/1")
        finally:
            worker.close()

    def fail(self, job_id: str, error: str) -> None:
        with transaction(self.engine) as tx:
            job = jobs.claim_job(tx, job_id, "host/work-0/1", {MODEL: "d"}, self.enqueuer)
            assert job is not None
            assert jobs.finish_failed(tx, job, error, Failure.FAILED, self.enqueuer)

    def complete(self, job_id: str) -> None:
        """One attempt that makes a SEG and an SR, as rows only."""
        with transaction(self.engine) as tx:
            job = jobs.claim_job(tx, job_id, "host/work-0/1", {MODEL: "d"}, self.enqueuer)
            assert job is not None
            done = Succeeded(made_by(job.id), Trace({"read": 0.1, "infer": 1.5}))
            assert jobs.finish_completed(tx, job, done, self.enqueuer)

    def claim(self, job_id: str) -> None:
        with transaction(self.engine) as tx:
            assert jobs.claim_job(tx, job_id, "host/work-0/1", {MODEL: "d"}, self.enqueuer)

    def send(self, job_id: str, *outcomes: Sent | DeliveryError) -> None:
        """One attempt for each outcome, at the deliveries of a job in their order."""
        for outcome in outcomes:
            with transaction(self.engine) as tx:
                (job,) = list_jobs(tx, JobFilter(job=job_id))
                waiting = next(d for d in job["deliveries"] if d["state"] == "waiting")
                delivery = deliveries.claim_delivery(tx, waiting["id"], "host/deliver-0/1", self.enqueuer)
                assert delivery is not None
                if isinstance(outcome, Sent):
                    deliveries.finish_delivered(tx, delivery, outcome, self.enqueuer)
                elif outcome.retry:
                    deliveries.finish_retry(tx, delivery, outcome, 3600.0, self.enqueuer)
                else:
                    deliveries.finish_failed(tx, delivery, outcome, self.enqueuer)

    def breathe(self) -> None:
        """A worker and a deliverer say that they live."""
        with transaction(self.engine) as tx:
            for role in ("work", "deliver"):
                register_node(tx, f"host/{role}-0/1", host="ainode", role=role, slot="0", pid=4711, version="0.1")

    def jobs(self, **which: Any) -> list[dict[str, Any]]:
        with transaction(self.engine) as tx:
            return list_jobs(tx, JobFilter(**which))

    def token(self, name: str, *rights: Right) -> str:
        """A token of an account, with these rights."""
        secret = TOKEN_PREFIX + draw_secret()
        with transaction(self.engine) as tx:
            account = accounts.find_account(tx, name)
            assert account is not None
            accounts.add_token(tx, account.id, "test", digest(secret), rights, None, actor="test")
        return secret

    def client(self, token: str = "", **more: Any) -> TestClient:
        """A client over HTTPS, with a token or without anything."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return TestClient(self.site, "https://node.test", headers=headers, follow_redirects=False, **more)

    def signed_in(self, name: str) -> TestClient:
        """A browser in which somebody has signed in."""
        browser = self.client()
        answer = browser.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        return browser


@contextmanager
def serving(node: WebNode, **web: Any) -> Iterator[str]:
    """Serve its pages on a free port, as `dicom-node web` does; the address."""
    port = free_port()
    settings = node.settings.model_copy(update={"web": node.settings.web.model_copy(update={"port": port, **web})})
    stop = threading.Event()
    thread = threading.Thread(target=serve_site, args=(node.desk(settings), stop))
    thread.start()
    try:
        wait_for(lambda: _answers(port), 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_database(url: str) -> None:
    """Make the tables and three people: vera looks, otto acts, ann looks after all."""
    migrate.upgrade(url)
    job_engine.migrate(url)
    engine = open_engine(url)
    hashed = hash_password(PASSWORD)
    with transaction(engine) as tx:
        for name, role in (("vera", Role.VIEWER), ("otto", Role.OPERATOR), ("ann", Role.ADMIN)):
            accounts.add_account(tx, name, role, hashed, actor="test")
        tx.execute(delete(t.audit_event))
    engine.dispose()


@contextmanager
def web_node(home: Path, database_url: str = "sqlite:///node.db", *, more: str = "") -> Iterator[WebNode]:
    """Open one on a database that `make_database` made; a relative one is in `home`. `more`: of its settings."""
    (home / "rules").mkdir(parents=True, exist_ok=True)
    (home / "settings.toml").write_text(f'{SETTINGS}[database]\nurl = "{database_url}"\n{more}')
    (home / "rules" / "chest_ct.toml").write_text(RULE)
    settings = load_settings(home / "settings.toml", {})
    spool = Spool(settings.spool.path, 0)
    spool.prepare()
    engine = open_engine(settings.database.url)
    enqueuer = Enqueuer(engine)
    catalog = load_catalog(settings)
    desk = Desk(settings, Rulebook(settings, catalog), engine, enqueuer, spool, echo)
    node = WebNode(settings, engine, enqueuer, spool, catalog, build_site(desk))
    try:
        yield node
    finally:
        enqueuer.close()
        engine.dispose()


def fill(node: WebNode, chest_ct: Sequence[Path], scratch: Path) -> dict[str, str]:
    """A day at the node: delivered, refused, failed, waiting, running, canceled, unmatched, arriving.

    Returns
    -------
    dict of str to str
        The ids of the jobs, by what became of them, and of two series without one.
    """
    node.breathe()
    made: dict[str, str] = {}

    def come(name: str, change: Any = lambda number, ds: ds, slices: int = 20) -> str:
        def told(number: int, ds: Dataset) -> Dataset | None:
            ds.AccessionNumber, ds.PatientID, ds.PatientName = f"A-{name}", f"P-{name}", f"{name.upper()}^SYNTHETIC"
            return change(number, ds)  # type: ignore[no-any-return]

        node.receive(small_ct(scratch / name, slices=slices, rows=32, columns=32, change=told))
        found = node.jobs(accession=f"A-{name}")
        return found[0]["id"] if found else ""

    node.receive(chest_ct)
    (done,) = node.jobs()
    node.work(done["id"])
    (finished,) = node.jobs(job=done["id"])
    node.send(done["id"], *[Sent(0)] * len(finished["deliveries"]))
    made["completed"] = done["id"]
    made["refused"] = come("gap", lambda number, ds: None if number == 9 else ds)
    made["failed"] = come("broken")
    node.fail(made["failed"], f"The model {MODEL} ran out of memory while it ran (limit 2048 MiB).")
    made["canceled"] = come("unwanted")
    with transaction(node.engine) as tx:
        operate.cancel(tx, made["canceled"], actor="operator ann")
    made["running"] = come("running")
    node.claim(made["running"])
    made["scheduled"] = come("waiting")
    come("few", slices=3)
    store_files(node.engine, node.spool, small_ct(scratch / "arriving", slices=4), quiet_s=3600.0)
    return made


def fill_quickly(node: WebNode, scratch: Path) -> None:
    """Eight series of as many studies, rows only: two results, four states, two without a job, one of them an MR."""

    def come(name: str, *, modality: str = "CT", date: str = "20260102", slices: int = 12) -> str:
        def told(number: int, ds: Dataset) -> Dataset:
            ds.AccessionNumber, ds.PatientID, ds.PatientName = f"A-{name}", f"P_{name}", f"{name.upper()}^SYNTHETIC"
            ds.Modality, ds.StudyDate = modality, date
            return ds

        node.receive(small_ct(scratch / name, slices=slices, rows=8, columns=8, change=told))
        found = node.jobs(accession=f"A-{name}")
        return found[0]["id"] if found else ""

    node.breathe()
    for name in ("first", "second"):
        node.complete(job := come(name, date="20251231"))
        node.send(job, Sent(0), DeliveryError("pacs answered 0xC000", retry=False, status=0xC000))
    node.fail(come("broken"), f"The model {MODEL} crashed.")
    unwanted = come("unwanted")
    with transaction(node.engine) as tx:
        operate.cancel(tx, unwanted, actor="operator ann")
    come("mr", modality="MR")
    come("few", slices=3)
    node.claim(come("running"))
    come("waiting")
