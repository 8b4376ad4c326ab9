"""A report that says NOT ANALYSED reaches the PACS once, wherever the worker is killed while it makes it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from sqlalchemy import select

from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.deliver.sender import Deliverer
from dicom_node.domain.uids import result_uid
from tests.ct import small_ct
from tests.integration.deliver.peer import Scp, destination
from tests.integration.operated import Operated, operated
from tests.integration.work.test_rejection_killed import SETTINGS
from tests.node import wait_for

# Workers as `serve` starts them, one after the other: each is killed where some function is called, the last one lives.
WORKERS = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
from dicom_node.app import run_role, stop_on_signals
from dicom_node.settings import load_settings

def work():
    run_role(load_settings(Path(sys.argv[1]), {}), "work", 0, stop_on_signals())

for named in sys.argv[2:]:
    module, _, function = named.rpartition(".")
    module = import_module(module)
    if not (pid := os.fork()):
        setattr(module, function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        work()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, named
work()
"""
KILLED_AT = (
    "dicom_node.results.unanalysed.summary_group",  # the document is half built
    "dicom_node.spool.sync_folder",  # its file is there, its name not yet on disk
    "dicom_node.work.worker.finish_reported",  # everything is on disk, and no row speaks of it
)


def test_one_report_arrives_wherever_the_worker_is_killed_while_it_makes_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    with operated(url, tmp_path) as node, Scp() as peer:
        (tmp_path / "rules").mkdir()
        settings = tmp_path / "settings.toml"
        settings.write_text("models = []\n" + SETTINGS.format(url=url, port=peer.port))
        paths = small_ct(tmp_path / "ct", slices=8)
        node.receive(paths[:4] + paths[5:])
        (job,) = (job["id"] for job in node.jobs(state="failed"))

        workers = subprocess.Popen([sys.executable, "-c", WORKERS, str(settings), *KILLED_AT])
        try:
            wait_for(lambda: node.jobs()[0]["report"] == "made", 240)
        finally:
            workers.terminate()
            assert workers.wait(180) == 0
        deliver(node, peer)

        assert Counter(peer.stored) == Counter({result_uid(job, "sr"): 1})
        (told,) = (dcmread(DicomBytesIO(data), force=True) for _, _, data in peer.received)
        assert told.SeriesDescription.startswith("NOT ANALYSED (not eligible)")
        with node.engine.begin() as tx:
            assert tx.scalar(select(t.job.c.report_attempt)) == 1 + len(KILLED_AT)
        assert "pacs was told at " in node.told(job).splitlines()[-1]


def deliver(node: Operated, peer: Scp) -> None:
    """Send whatever there is to send, twice."""
    catalog = Catalog((), {}, {"pacs": destination(peer.port)})
    deliverer = Deliverer(node.settings, catalog, node.engine, node.enqueuer, node.spool, 0)
    with node.engine.begin() as tx:
        due = tx.scalars(select(t.delivery.c.id)).all()
    for one in (*due, *due):
        deliverer.deliver(one, "deliverer")
