"""Studies asked back from a real Orthanc: by C-MOVE, by C-GET, by WADO-RS; at night, at a pace, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_node.cli import cli
from dicom_node.db import migrate, retrievals
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.deliver.dimse import send_files
from dicom_node.domain.retrieval import Kind
from dicom_node.fetch.fetcher import Fetcher
from dicom_node.settings import load_settings
from tests.ct import small_ct
from tests.integration.receive.conftest import Running
from tests.node import free_port, wait_for
from tests.peers.orthanc import Orthanc

PORT = free_port()  # one for the whole file: Orthanc is told of it once
STUDIES = {f"A{n}": generate_uid() for n in range(1, 5)}
SLICES = {"A1": 4, "A2": 3, "A3": 2, "A4": 2}


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that holds four small studies and knows us."""
    home = tmp_path_factory.mktemp("orthanc")
    archive = Orthanc(home / "orthanc").start()
    files: list[Path] = []
    for accession, study in STUDIES.items():

        def name(number: int, ds: Dataset, accession: str = accession, study: str = study) -> Dataset:
            ds.AccessionNumber, ds.StudyInstanceUID = accession, study
            return ds

        files += small_ct(home / accession, slices=SLICES[accession], rows=16, columns=16, change=name)
    sent = send_files(files, "127.0.0.1", archive.dicom_port, archive.ae, "AINODE")
    assert not [one.problem for one in sent if one.problem]
    archive.know("AINODE", PORT)
    yield archive
    archive.discard()


class Site:
    """A node with a receiver in this process, and archives to ask."""

    def __init__(self, home: Path, archive: Orthanc, url: str = "") -> None:
        self.url = url or f"sqlite:///{home / 'node.db'}"
        (home / "rules").mkdir()
        self.file = home / "settings.toml"
        self.file.write_text(
            f'[database]\nurl = "{self.url}"\n\n[spool]\npath = "spool"\nreserve_mib = 0\n\n'
            f'[receive]\naddress = "127.0.0.1"\nport = {PORT}\n[[receive.peers]]\nae_title = "{archive.ae}"\n\n'
            "[retrieve]\nretry_s = 0.2\ntimeout_s = 30\n\n"
            f'[destinations.pacs]\nhost = "127.0.0.1"\nport = {archive.dicom_port}\nae_title = "{archive.ae}"\n\n'
            f'[destinations.web]\nkind = "stow"\nurl = "{archive.url}/dicom-web"\n\n'
            f'[destinations.away]\nhost = "127.0.0.1"\nport = {free_port()}\nae_title = "AWAY"\ntimeout_s = 2\n'
        )
        migrate.upgrade(self.url)
        self.settings = load_settings(self.file, {})
        peers = [{"ae_title": archive.ae}]
        self.node = Running(home, self.url, port=PORT, peers=peers)
        self.engine = self.node.engine
        self._stop = threading.Event()
        fetcher = Fetcher(self.settings, self.engine, self.node.spool, 0)
        self._thread = threading.Thread(target=fetcher.run, args=(self._stop,))

    def work(self) -> None:
        """Have the batches worked off from now on."""
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)
        self.node.stop()

    def start(self, source: str, how: str, *accessions: str, **options: Any) -> str:
        items = [(Kind.ACCESSION, one) for one in accessions]
        with transaction(self.engine) as tx:
            return retrievals.add_batch(tx, source, how, items, called_ae="AINODE", actor="operator x", **options)

    def batch(self, batch: str) -> Any:
        with transaction(self.engine) as tx:
            return retrievals.find_batch(tx, batch)

    def items(self, batch: str) -> list[Any]:
        with transaction(self.engine) as tx:
            return list(retrievals.list_items(tx, batch))

    def ended(self, batch: str) -> Any:
        """Wait until a batch has ended; its items by what they asked for."""
        why = lambda: str(self.items(batch))  # noqa: E731
        wait_for(lambda: self.batch(batch).state not in ("running", "paused"), 60, why, every_s=0.05)
        return {one.value: one for one in self.items(batch)}

    def command(self, *words: str) -> Any:
        return CliRunner().invoke(cli, ["retrieve", *words, "--settings", str(self.file)])


Open = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path, orthanc: Orthanc) -> Iterator[Site]:
    one = Site(tmp_path, orthanc)
    yield one
    one.stop()


@pytest.fixture
def on_both(tmp_path: Path, orthanc: Orthanc, database_url: str) -> Iterator[Site]:
    """On SQLite, and then on PostgreSQL."""
    one = Site(tmp_path, orthanc, database_url)
    yield one
    one.stop()


@pytest.mark.parametrize(("source", "how", "calling"), [("pacs", "get", "ORTHANC"), ("web", "wado", "WADO")])
def test_studies_are_fetched_as_they_are(site: Site, orthanc: Orthanc, source: str, how: str, calling: str) -> None:
    site.work()
    batch = site.start(source, how, "A1", "A2", "NONE")
    items = site.ended(batch)
    assert [(items[n].state, items[n].studies, items[n].instances) for n in ("A1", "A2")] == [
        ("done", 1, 4),
        ("done", 1, 3),
    ]
    assert (items["NONE"].state, items["NONE"].reason) == (
        "failed",
        f"{source} knows no study with this accession number",
    )
    stored = site.node.stored()
    sent = {str(dcmread(path).SOPInstanceUID): path.read_bytes() for path in orthanc.folder.parent.glob("A[12]/*.dcm")}
    assert stored.keys() == sent.keys()
    for uid, content in sent.items():  # the data set, after the file meta information of each
        assert (
            stored[uid][144 + int.from_bytes(stored[uid][140:144], "little") :]
            == content[144 + int.from_bytes(content[140:144], "little") :]
        )
    rows = site.node.soon(lambda: [row for row in site.node.rows(t.association) if row.ended_at])
    assert {(row.calling_ae, row.called_ae, row.end_reason) for row in rows} == {(calling, "AINODE", "released")}


def test_studies_are_moved_to_our_receiver(on_both: Site) -> None:
    site = on_both
    site.work()
    batch = site.start("pacs", "move", "A1", "A2", "A3")
    items = site.ended(batch)
    assert {(one.state, one.instances) for one in items.values()} == {("done", 4), ("done", 3), ("done", 2)}
    assert len(site.node.stored()) == 9
    assert {row.calling_ae for row in site.node.rows(t.association)} == {"ORTHANC"}
    events = [row.event for row in site.node.rows(t.audit_event) if "retrieval" in row.event]
    assert events == ["retrieval started", "retrieval ended"]
    again = site.start("pacs", "move", "A1")
    assert site.ended(again)["A1"].state == "done"
    assert len(site.node.stored()) == 9


def test_an_archive_that_is_away_is_asked_again_and_then_given_up(site: Site) -> None:
    site.work()
    (item,) = site.ended(site.start("away", "move", "A1")).values()
    assert (item.state, item.attempt) == ("failed", 3)
    assert "no connection to away" in item.reason
    assert [row.event for row in site.node.rows(t.audit_event)].count("retrieval of an item failed") == 1


def test_hours_rate_pause_and_cancel_are_kept(site: Site) -> None:
    now = datetime.now()
    elsewhen = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    waits = site.start("pacs", "move", "A1", hours=elsewhen)
    slow = site.start("pacs", "move", "A2", "A3", "A4", per_minute=40.0)
    began = time.monotonic()
    site.work()
    items = site.ended(slow)
    assert time.monotonic() - began > 2.9  # three, 1.5 s from one to the next
    assert {one.state for one in items.values()} == {"done"}
    assert [one.state for one in site.items(waits)] == ["waiting"]
    assert site.command("pause", waits[:8]).exit_code == 0
    assert site.batch(waits).state == "paused"
    assert site.command("resume", waits[:8]).exit_code == 0
    assert site.command("cancel", waits[:8]).exit_code == 0
    assert [one.state for one in site.items(waits)] == ["canceled"]
    again = site.command("resume", waits[:8])
    assert again.exit_code == 1
    assert "canceled already" in again.output


def test_the_command_reads_lists_and_refuses_what_would_ask_for_everything(site: Site, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("Study Date;Accession Number;Comment\n20260101;A1;x\n20260102;A2;y\n;;\n")
    started = site.command("start", "pacs", "--accessions", str(listed), "--night", "22:00-06:00", "--rate", "5")
    assert started.exit_code == 0, started.output
    (row,) = json.loads(site.command("list", "--json").stdout)
    assert (row["how"], row["hours"], row["per_minute"], row["items"]) == (
        "move",
        "22:00-06:00",
        5.0,
        {"instances": 0, "waiting": 2},
    )
    shown = json.loads(site.command("show", row["id"], "--json").stdout)
    assert [one["value"] for one in shown] == ["A1", "A2"]
    assert "not in receive.peers" not in started.output
    assert "AWAY is not in receive.peers" in site.command("start", "away", "--accession", "A1").output
    for words, told in (
        (["pacs", "--accession", "A*"], "wildcard"),
        (["pacs", "--study", "1.2.?"], "wildcard"),
        (["pacs"], "name what to retrieve"),
        (["web", "--accession", "A1", "--how", "move"], "wado"),
        (["nowhere", "--accession", "A1"], "there is no [destinations.nowhere]"),
        (["pacs", "--accession", "A1", "--to", "OTHER"], "no title of ours"),
        (["pacs", "--accession", "A1", "--night", "10pm"], "no span of hours"),
    ):
        refused = site.command("start", *words)
        assert refused.exit_code != 0
        assert told in refused.output


def test_a_process_that_is_killed_in_the_middle_loses_no_item(site: Site) -> None:
    batch = site.start("pacs", "move", *SLICES, per_minute=120.0)
    command = [sys.executable, "-m", "dicom_node", "fetch", "--settings", str(site.file)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lambda: [one for one in site.items(batch) if one.state == "done"], 60, every_s=0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert site.batch(batch).state == "running"
    second = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        items = site.ended(batch)
    finally:
        second.terminate()
        second.wait(180)
    assert {one.state for one in items.values()} == {"done"}
    assert len(site.node.stored()) == sum(SLICES.values())
