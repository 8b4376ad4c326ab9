"""The same series twice, out of a watched folder and by WADO-RS: stored, analysed and sent once, and told of."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from sqlalchemy import func, select

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import retrievals
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.deliver.dimse import send_files
from dicom_node.deliver.sender import Deliverer
from dicom_node.domain.retrieval import Kind
from dicom_node.fetch.fetcher import Fetcher
from dicom_node.settings import Settings
from dicom_node.store.storage import Storage
from dicom_node.watch import FolderWatch, Watcher
from tests.ct import small_ct
from tests.integration.deliver.peer import Scp, destination
from tests.integration.operated import Operated, operated
from tests.node import wait_for
from tests.peers.orthanc import Orthanc


def test_out_of_a_watched_folder(tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    folder = {"path": drop, "afterwards": "delete", "calling_ae": "DROP", "settle_s": 0.1, "every_s": 0.1}
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node, Scp() as peer:
        watcher = Watcher(settings_of(node, receive={"folders": [folder]}), node.engine, node.spool)
        with running(watcher.run):

            def bring(paths: list[Path]) -> None:
                for path in paths:
                    shutil.copy(path, drop / f"{path.name}.part")
                    (drop / f"{path.name}.part").rename(drop / path.name)
                wait_for(lambda: not list(drop.iterdir()), 60)

            comes_twice(node, peer, tmp_path, bring, "DROP")


def test_by_wado(tmp_path: Path, orthanc: Orthanc) -> None:
    web = {"kind": "stow", "url": f"{orthanc.url}/dicom-web"}
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node, Scp() as peer:
        fetcher = Fetcher(settings_of(node, destinations={"web": web}), node.engine, node.spool, 0)
        with running(fetcher.run):

            def bring(paths: list[Path]) -> None:
                sent = send_files(paths, "127.0.0.1", orthanc.dicom_port, orthanc.ae, "AINODE")
                assert not [one.problem for one in sent if one.problem]
                items = [(Kind.STUDY, str(dcmread(paths[0]).StudyInstanceUID))]
                with transaction(node.engine) as tx:
                    batch = retrievals.add_batch(tx, "web", "wado", items, called_ae="AINODE", actor="operator x")

                def ended() -> bool:
                    with transaction(node.engine) as tx:
                        return [one.state for one in retrievals.list_items(tx, batch)] == ["done"]

                wait_for(ended, 60)

            comes_twice(node, peer, tmp_path, bring, "WADO")


def test_what_stays_in_a_watched_folder_is_told_of_once_however_often_the_watcher_starts(tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "drop", slices=4, rows=16, columns=16)
    folder = {"path": tmp_path / "drop", "afterwards": "keep", "calling_ae": "DROP", "settle_s": 0.1}
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node:
        [watched] = settings_of(node, receive={"folders": [folder]}).receive.folders

        def start_and_look() -> None:
            storage = Storage(node.spool, node.engine, node.settings.assemble.waiting())
            storage.start()
            assert wait_for(FolderWatch(watched, "AINODE", storage, node.engine).sweep, 60) == 4
            storage.stop(60)

        start_and_look()
        assert stored(node) == 4
        Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()
        for _ in range(3):
            start_and_look()
            assert node.told(str(dcmread(paths[0]).SeriesInstanceUID)).count("came again") == 1


def comes_twice(node: Operated, peer: Scp, home: Path, bring: Callable[[list[Path]], None], calling: str) -> None:
    """Bring a series that is refused for a gap, so that its report is sent; then bring it again."""
    paths = small_ct(home / "ct", slices=8, rows=16, columns=16)
    paths.pop(4)
    series = str(dcmread(paths[0]).SeriesInstanceUID)
    bring(paths)
    wait_for(lambda: stored(node) == 7, 60)
    go_on(node, peer)
    (job,) = node.jobs()
    (sent,) = peer.stored
    told = node.told(series)
    assert "came again" not in told

    bring(paths)
    again = (
        f"came again, called AINODE by {calling}: what came was here already, byte for byte, and nothing is done twice"
    )
    wait_for(lambda: again in node.told(series), 60)
    go_on(node, peer)

    assert stored(node) == 7
    assert len(list((node.spool.root / "instances").rglob("*.dcm"))) == 7
    assert node.jobs() == [job]
    assert peer.stored == [sent]
    assert node.told(series).count("came again") == 1
    assert node.told(series).splitlines()[-1] == told.splitlines()[-1], "the answer stays what it was"


def go_on(node: Operated, peer: Scp) -> None:
    """Close what is due, report what failed, send everything that there is to send."""
    node.catalog = Catalog(node.catalog.rules, node.catalog.models, {"pacs": destination(peer.port)})
    Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()
    for job in node.jobs(state="failed"):
        node.report(job["id"])
    with transaction(node.engine) as tx:
        due = tx.scalars(select(t.delivery.c.id)).all()
    deliverer = Deliverer(node.settings, node.catalog, node.engine, node.enqueuer, node.spool, 0)
    for one in due:
        deliverer.deliver(one, "deliverer")


def stored(node: Operated) -> int:
    with transaction(node.engine) as tx:
        return int(tx.scalar(select(func.count()).select_from(t.instance)) or 0)


def settings_of(node: Operated, **more: Any) -> Settings:
    """The settings of a node, and more."""
    return Settings.model_validate(node.settings.model_dump(exclude_unset=True) | more)


@contextmanager
def running(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a process's loop in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
