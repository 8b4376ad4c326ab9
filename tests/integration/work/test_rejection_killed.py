"""What rejects older results is neither lost nor doubled when whoever makes it or sends it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, KeyObjectSelectionDocumentStorage, SegmentationStorage
from pynetdicom import evt
from sqlalchemy import select

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.domain.delivery import FolderDestination
from dicom_node.work.worker import Worker
from tests.ct import small_ct
from tests.integration.deliver.peer import Scp, destination
from tests.integration.deliver.rows import attempts
from tests.integration.engine.rows import job_row
from tests.integration.operated import RULES, Operated, operated
from tests.integration.work.test_rejection import Line, bench, database_url, line
from tests.integration.work.test_worker import Bench, until
from tests.stored import sender, store_files

__all__ = ["bench", "database_url", "line"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
CLASSES = (SegmentationStorage, Comprehensive3DSRStorage, KeyObjectSelectionDocumentStorage)


@contextmanager
def deliverer(line: Line, peer: Scp) -> Iterator[subprocess.Popen[bytes]]:
    """A delivering process beside the worker of this one."""
    settings = line.bench.folder / "deliver.toml"
    text = line.bench.settings.file.read_text()
    settings.write_text(text.replace('ae_title = "PACS"', f'ae_title = "PACS"\nport = {peer.port}\ntimeout_s = 60'))
    (line.bench.folder / "rules").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.integration.deliver.deliverer", str(settings), "0"]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_deliverer_killed_before_it_hears_that_the_rejection_was_taken_sends_the_same_again(line: Line) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def hold(event: evt.Event) -> None:
        if event.request.AffectedSOPClassUID == KeyObjectSelectionDocumentStorage and not go_on.is_set():
            under_way.set()
            go_on.wait(60)

    with Scp(before_answer=hold, classes=CLASSES) as peer:
        line.destinations = {"pacs": destination(peer.port)}
        with deliverer(line, peer) as killed:
            first = line.run()
            until(lambda: line.sent(first) == {"pacs": ["seg", "sr"]})
            second = line.run()
            assert under_way.wait(60)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        go_on.set()
        assert line.sent(second) == {"pacs": ["seg", "sr"]}
        with deliverer(line, peer):
            until(lambda: line.sent(second) == {"pacs": ["seg", "sr", "rejection"]})
            third = line.run()
            until(lambda: line.sent(third) == {"pacs": ["seg", "sr", "rejection"]})

    of_jobs = [line.uids(job, "seg", "sr", "rejection") for job in (first, second, third)]
    assert set(peer.stored) == set().union(*of_jobs)
    [again] = line.uids(second, "rejection")
    assert Counter(peer.stored) == Counter({uid: 1 for uids in of_jobs for uid in uids} | {again: 2})
    assert len({received for received in peer.received if received[0] == again}) == 1, "the same bytes"
    assert line.rejected(second) == line.uids(first, "seg", "sr")
    assert line.rejected(third) == line.uids(second, "seg", "sr"), "what was rejected is not rejected once more"
    with line.bench.engine.begin() as tx:
        d, r = t.delivery.c, t.result.c
        note = tx.scalars(select(d.id).join(t.result, r.id == d.result_id).where(r.sop_instance_uid == again)).one()
    assert attempts(line.bench.engine, note) == [(1, "lost", None), (2, "delivered", 0x0000)]


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from dicom_node import assemble
from dicom_node.assemble import Assembler
from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from tests.integration.operated import CARD, RULES, operated

def route(*given, **named):
    routed(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)  # before anything is committed

routed, assemble.route_series = assemble.route_series, route
rule = replace(RULES[0], model="sides", destinations=("folder",))
with operated(sys.argv[1], Path(sys.argv[2])) as node:
    node.catalog = Catalog((rule,), {"sides": replace(CARD, name="sides")}, {})
    Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()
"""


def test_an_assembler_killed_while_it_supersedes_leaves_one_job_that_rejects_what_was_sent(tmp_path: Path) -> None:
    url, paths = f"sqlite:///{tmp_path / 'node.db'}", small_ct(tmp_path / "ct", slices=8)
    (tmp_path / "out").mkdir()
    with operated(url, tmp_path) as node:
        bench = Bench(tmp_path, node.settings, node.engine, node.enqueuer, node.spool, ("", []))
        line = Line(bench, {"folder": FolderDestination(name="folder", path=tmp_path / "out")})
        rule = replace(RULES[0], model="sides", destinations=("folder",))
        node.catalog = Catalog((rule,), {"sides": bench.card()}, line.destinations)
        worker = Worker(node.settings, node.catalog, node.engine, node.enqueuer, node.spool)
        node.receive(paths[:6])
        before = work(node, worker)
        line.deliver()

        store_files(node.engine, node.spool, paths[6:], quiet_s=0.0, by=sender("CT1"))
        killed = subprocess.run([sys.executable, "-c", KILLED, url, str(tmp_path)], check=False, timeout=120)
        assert killed.returncode == -signal.SIGKILL
        assert node.jobs(state="scheduled") == []
        for _ in range(2):
            Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()
        after = work(node, worker)
        line.deliver()
        worker.close()

        assert line.sent(after) == {"folder": ["seg", "sr", "rejection"]}
        assert line.rejected(after) == line.uids(before, "seg", "sr")
    kinds = Counter(str(dcmread(path).Modality) for path in (tmp_path / "out").rglob("*.dcm"))
    assert kinds == {"SEG": 2, "SR": 2, "KO": 1}


def work(node: Operated, worker: Worker) -> str:
    """Have the only job that is due done."""
    [job] = node.jobs(state="scheduled")
    worker.work_on(job["id"], "worker")
    assert job_row(node.engine, job["id"]).state == "completed"
    return str(job["id"])
