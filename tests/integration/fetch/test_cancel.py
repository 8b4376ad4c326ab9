"""A batch that is canceled has the archive told to stop what it sends: a real archive, which is in no hurry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_node.db import migrate, retrievals
from dicom_node.db.engine import open_engine, transaction
from dicom_node.domain.retrieval import BatchState, Kind
from dicom_node.fetch.fetcher import Fetcher
from dicom_node.settings import load_settings
from dicom_node.spool import Spool
from tests.ct import small_ct
from tests.integration.receive.conftest import Running
from tests.node import free_port, wait_for

STUDY = generate_uid()


class Archive:
    """Answers queries, and sends a study again and again until it is told to stop."""

    def __init__(self, image: Path, node_port: int) -> None:
        self.port = free_port()
        self.sent = threading.Event()
        self.canceled = threading.Event()
        self._image, self._node = image, ("127.0.0.1", node_port)
        ae = AE("SLOW")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        ae.add_requested_context(CTImageStorage)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_C_GET, self._send),
        ]
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        match = Dataset()
        match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", STUDY
        match.AccessionNumber = event.identifier.AccessionNumber
        yield 0xFF00, match

    def _move(self, event: evt.Event) -> Iterator[Any]:
        yield self._node
        yield from self._send(event)

    def _send(self, event: evt.Event) -> Iterator[Any]:
        yield 1000
        for _ in range(1000):
            if event.is_cancelled:
                self.canceled.set()
                yield 0xFE00, None
                return
            yield 0xFF00, dcmread(self._image)
            self.sent.set()


@pytest.mark.parametrize("how", ["move", "get"])
def test_an_archive_stops_when_its_batch_is_canceled(tmp_path: Path, how: str) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate.upgrade(url)
    node = Running(tmp_path, url, peers=[{"ae_title": "SLOW"}])
    (image,) = small_ct(tmp_path / "ct", slices=1, rows=16, columns=16)
    archive = Archive(image, node.port)
    server = archive.server
    assert server is not None
    (tmp_path / "settings.toml").write_text(
        f'[database]\nurl = "{url}"\n[spool]\npath = "spool"\nreserve_mib = 0\n'
        f'[destinations.slow]\nhost = "127.0.0.1"\nport = {archive.port}\nae_title = "SLOW"\n'
    )
    engine, stop = open_engine(url), threading.Event()
    fetcher = Fetcher(load_settings(tmp_path / "settings.toml", {}), engine, Spool(tmp_path / "spool", 0), 0)
    working = threading.Thread(target=fetcher.run, args=(stop,))
    working.start()
    try:
        with transaction(engine) as tx:
            items = [(Kind.ACCESSION, "A1"), (Kind.ACCESSION, "A2")]
            batch = retrievals.add_batch(tx, "slow", how, items, called_ae="AINODE", actor="operator x")
        assert archive.sent.wait(60)
        with transaction(engine) as tx:
            (first, second) = retrievals.list_items(tx, batch)
            assert (retrievals.is_under_way(first), retrievals.is_under_way(second)) == (True, False)
            retrievals.change_batch(tx, batch, BatchState.CANCELED, actor="operator x")
        assert archive.canceled.wait(60)
        wait_for(lambda: not server.active_associations, 60)
        with transaction(engine) as tx:
            assert [(one.state, one.reason) for one in retrievals.list_items(tx, batch)] == [("canceled", "")] * 2
    finally:
        stop.set()
        working.join(60)
        server.shutdown()
        engine.dispose()
        node.stop()
