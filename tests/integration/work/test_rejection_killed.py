"""What rejects older results is neither lost nor doubled when whoever has it made or sends it is killed."""

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
from pydicom.uid import Comprehensive3DSRStorage, KeyObjectSelectionDocumentStorage, SegmentationStorage
from pynetdicom import evt
from sqlalchemy import select

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.work.worker import Worker
from tests.ct import small_ct
from tests.integration.deliver.peer import Scp, destination
from tests.integration.deliver.rows import attempts
from tests.integration.engine.rows import job_row
from tests.integration.operated import RULES, Operated, operated
from tests.integration.work.test_rejection import Line
from tests.integration.work.test_worker import Bench, until
from tests.stored import sender, store_files

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
CLASSES = (SegmentationStorage, Comprehensive3DSRStorage, KeyObjectSelectionDocumentStorage)
SETTINGS = """
[database]
url = "{url}"
[spool]
reserve_mib = 0
[engine]
poll_s = 0.1
dead_after_s = 200
[destinations.pacs]
host = "127.0.0.1"
port = {port}
ae_title = "PACS"
timeout_s = 60
"""
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
rule = replace(RULES[0], model="sides", destinations=("pacs",))
with operated(sys.argv[1], Path(sys.argv[2])) as node:
    node.catalog = Catalog((rule,), {"sides": replace(CARD, name="sides")}, {})
    Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()
"""


@contextmanager
def deliverer(home: Path, url: str, peer: Scp) -> Iterator[subprocess.Popen[bytes]]:
    """A delivering process beside the worker of this one."""
    (home / "settings.toml").write_text(SETTINGS.format(url=url, port=peer.port))
    (home / "rules").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.integration.deliver.deliverer", str(home / "settings.toml"), "0"]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_late_images_are_superseded_and_rejected_once_whoever_is_killed_on_the_way(tmp_path: Path) -> None:
    url, paths = f"sqlite:///{tmp_path / 'node.db'}", small_ct(tmp_path / "ct", slices=8)
    under_way, go_on = threading.Event(), threading.Event()

    def hold(event: evt.Event) -> None:
        if event.request.AffectedSOPClassUID == KeyObjectSelectionDocumentStorage and not go_on.is_set():
            under_way.set()
            go_on.wait(60)

    with operated(url, tmp_path) as node, Scp(before_answer=hold, classes=CLASSES) as peer:
        bench = Bench(tmp_path, node.settings, node.engine, node.enqueuer, node.spool, ("", []))
        line = Line(bench, {"pacs": destination(peer.port)})
        rule = replace(RULES[0], model="sides", destinations=("pacs",))
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
        with deliverer(tmp_path, url, peer) as first:
            assert under_way.wait(60)
            first.send_signal(signal.SIGKILL)
            first.wait()
        go_on.set()
        assert line.sent(after) == {"pacs": ["seg", "sr"]}
        with deliverer(tmp_path, url, peer):
            until(lambda: line.sent(after) == {"pacs": ["seg", "sr", "rejection"]})
        newest = run_again(node, worker)
        worker.close()

        of_jobs = [line.uids(job, "seg", "sr", "rejection") for job in (before, after)]
        [note] = line.uids(after, "rejection")
        assert Counter(peer.stored) == Counter({uid: 1 for uids in of_jobs for uid in uids} | {note: 2})
        assert len({received for received in peer.received if received[0] == note}) == 1, "the same bytes"
        assert line.rejected(after) == line.uids(before, "seg", "sr")
        assert line.rejected(newest) == line.uids(after, "seg", "sr"), "what was rejected is not rejected once more"
        with node.engine.begin() as tx:
            d, r = t.delivery.c, t.result.c
            sent = tx.scalars(select(d.id).join(t.result, r.id == d.result_id).where(r.sop_instance_uid == note)).one()
        assert attempts(node.engine, sent) == [(1, "lost", None), (2, "delivered", 0x0000)]


def run_again(node: Operated, worker: Worker) -> str:
    """Have the newest job done once more, as an operator would."""
    newest = node.jobs()[0]["id"]
    node.retry(newest)
    return work(node, worker)


def work(node: Operated, worker: Worker) -> str:
    """Have the only job that is due done."""
    [job] = node.jobs(state="scheduled")
    worker.work_on(job["id"], "worker")
    assert job_row(node.engine, job["id"]).state == "completed"
    return str(job["id"])
