"""What is refused is let go of at once, and does not wait for a collector of garbage."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

from dicom_node.db import migrate
from dicom_node.db.engine import open_engine
from dicom_node.spool import Spool
from dicom_node.store.arrival import Arrival
from dicom_node.store.storage import Storage
from tests.integration.receive.objects import ct
from tests.node import wait_for
from tests.stored import alike, sender


def test_a_refused_data_set_is_let_go_of_once_it_is_answered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate.upgrade(url)
    engine, spool = open_engine(url), Spool(tmp_path / "spool", 0)
    spool.prepare()
    storage = Storage(spool, engine, alike(30.0))
    storage.start()
    gc.disable()
    try:
        answered = threading.Event()
        statuses: list[int] = []

        def answer(status: int, comment: str) -> None:
            statuses.append(status)
            answered.set()

        one = ct(1, StudyInstanceUID=None)
        data = memoryview(one.data)
        left = weakref.ref(data)
        arrival = Arrival(sender(), one.sop_class_uid, one.sop_instance_uid, one.transfer_syntax_uid, answer)
        storage.write(arrival, data)
        storage.finish(arrival)
        assert answered.wait(60)
        assert statuses == [0xC000]
        del arrival, data
        wait_for(lambda: left() is None, 30)
    finally:
        gc.enable()
        storage.stop(20)
        engine.dispose()
