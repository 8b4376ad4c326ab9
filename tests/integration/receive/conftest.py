"""A receiver in this process: real sockets, a real spool, a real database."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, Table, select, text

from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction
from dicom_node.receive.scp import Receiver
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from tests.node import free_port, wait_for

SCANNER = {"ae_title": "SCANNER", "address": "127.0.0.1"}


class Running:
    """A receiver that listens, and what it has stored."""

    def __init__(self, home: Path, url: str, *, spool: Spool | None = None, reserve_mib: int = 0, **receive: Any):
        self.port = receive.pop("port", None) or free_port()
        listens_on = receive.pop("listens_on", self.port)
        self.url = url
        self.settings = Settings.model_validate(
            {
                **receive.pop("settings", {}),
                "file": home / "settings.toml",
                "database": {"url": url},
                "spool": {"path": home / "spool", "reserve_mib": reserve_mib},
                "receive": {
                    "address": "127.0.0.1",
                    "port": self.port,
                    "processes": 1,
                    "peers": [SCANNER],
                    **receive,
                },
            }
        )
        self.spool = spool or Spool(home / "spool", reserve_mib)
        self.spool.prepare()
        self.engine = open_engine(url)
        self.stopping = threading.Event()
        receiver = Receiver(self.settings, self.spool, self.engine)
        self._thread = threading.Thread(target=receiver.run, args=(self.stopping,))
        self._thread.start()
        wait_for(lambda: listens(listens_on), 60, every_s=0.01)

    def stop(self) -> None:
        """Stop it in order."""
        self.stopping.set()
        listens(self.port)  # wakes it up
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.engine.dispose()

    def rows(self, table: Table) -> list[Row[Any]]:
        """Every row of a table, in the order of its key."""
        with transaction(self.engine) as tx:
            return list(tx.execute(select(table).order_by(*table.primary_key.columns)))

    def stored(self) -> dict[str, bytes]:
        """SOP Instance UID -> the file of each instance that has a row."""
        return {row.sop_instance_uid: self.spool.path(row.path).read_bytes() for row in self.rows(t.instance)}

    def files(self) -> list[str]:
        """Everything that lies in the spool."""
        found = (path.relative_to(self.spool.root) for path in self.spool.root.rglob("*") if path.is_file())
        return sorted(str(path) for path in found)

    def events(self, event: str) -> list[dict[str, Any]]:
        """What the audit trail tells of one kind of event."""
        return [row.detail for row in self.rows(t.audit_event) if row.event == event]

    def soon(self, look: Callable[[], Any]) -> Any:
        """Wait for what is not part of any answer: the end of an association, an event."""
        return wait_for(look, 60, every_s=0.02)


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def held(url: str) -> Iterator[None]:
    """Somebody else holds the tables, and lets nobody write for as long as the block takes."""
    engine = open_engine(url, pool_size=1)
    with engine.begin() as tx:  # on SQLite BEGIN IMMEDIATE holds everything
        if engine.dialect.name == "postgresql":
            tx.execute(text("LOCK TABLE instance IN ACCESS EXCLUSIVE MODE"))
        yield
    engine.dispose()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a receiver; takes what `Running` takes, and a migrated SQLite by default."""
    started: list[Running] = []

    def begin(*, url: str | None = None, migrated: bool = True, **options: Any) -> Running:
        url = url or f"sqlite:///{tmp_path / 'node.db'}"
        if migrated:
            migrate.upgrade(url)
        started.append(Running(tmp_path, url, **options))
        return started[-1]

    yield begin
    for one in started:
        one.stop()
