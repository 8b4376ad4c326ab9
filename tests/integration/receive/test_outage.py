"""No room, no database: 0xA700, and all is well again once they are back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_node.db import engine as database
from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.db.unstored import find_unstored
from dicom_node.spool import Incoming, Spool
from tests.integration.receive.conftest import Start, held
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import A_ABORT, Rejected, Scu, store_all
from tests.peers.postgresql import PostgreSQL
from tests.peers.tools import dcmtk

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
SERIES = "1.2.3.4.2"  # of `ct()`


def test_below_its_reserve_the_spool_takes_nothing(start: Start) -> None:
    node = start(reserve_mib=10**9)
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        scu.begin_store(ct(pixels=500_000))
        scu.send_data(ct(), ct(pixels=500_000).data)
        answer = scu.response()
        assert answer.Status == OUT_OF_RESOURCES
        assert "MiB" in answer.ErrorComment
        assert scu.echo() == SUCCESS
        node.spool.reserve_mib = 0  # room was made
        assert scu.store(ct()) == SUCCESS
        scu.release()
    (event,) = node.soon(lambda: node.events("instance refused"))
    assert event["status"] == "0xA700"
    with transaction(node.engine) as tx:
        assert find_unstored(tx, SERIES) is None, "it came again, and was stored"
    association = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    assert (association.stored, association.refused) == (1, 1)


class FullSpool(Spool):
    """A spool on a disk that is full for data sets of some numbers: their writes really fail with ENOSPC.

    Parameters
    ----------
    full_at : str
        ``write`` or ``sync``: where the disk says so.
    """

    def __init__(self, root: Path, full_at: str, full_for: set[int]) -> None:
        super().__init__(root, 0)
        self._full_at = full_at
        self._full_for = full_for
        self._number = 0

    def incoming(self) -> Incoming:
        """Open a file; for some, one that no disk has room for."""
        arriving = super().incoming()
        if self._number in self._full_for:
            if self._full_at == "write":
                full = os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)
                os.dup2(full, arriving._fd)
                os.close(full)
            else:
                arriving.sync = self._fail  # type: ignore[method-assign]
        self._number += 1
        return arriving

    def _fail(self) -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(full, b"x")
        finally:
            os.close(full)


@pytest.mark.parametrize("full_at", ["write", "sync"])
def test_a_disk_that_is_full_in_mid_write_refuses_that_instance_and_no_later_one(
    start: Start, tmp_path: Path, full_at: str
) -> None:
    node = start(spool=FullSpool(tmp_path / "spool", full_at, {1, 2}))
    slices = [ct(n, pixels=300_000) for n in range(5)]
    assert store_all(node.port, slices) == [SUCCESS, OUT_OF_RESOURCES, OUT_OF_RESOURCES, SUCCESS, SUCCESS]
    node.soon(lambda: len(node.rows(t.unstored)) == 2)
    with transaction(node.engine) as tx:
        found = find_unstored(tx, SERIES)
    assert found is not None
    assert (found.count, found.reason.endswith("No space left on device")) == (2, True)
    assert store_all(node.port, slices) == [SUCCESS] * 5
    with transaction(node.engine) as tx:
        assert find_unstored(tx, SERIES) is None
    assert len(node.stored()) == 5
    assert len([name for name in node.files() if name.startswith(("incoming/", "instances/"))]) == 5


def test_storescu_hears_of_a_full_disk(start: Start, chest_ct: Sequence[Path]) -> None:
    node = start(reserve_mib=10**9)
    titles = ("-aet", "SCANNER", "-aec", "AINODE")
    said = dcmtk("storescu", "-v", "-xt", *titles, "127.0.0.1", str(node.port), str(chest_ct[0]), succeeds=False)
    assert "Refused: OutOfResources" in said


def test_while_the_database_is_away_peers_are_told_to_send_again(
    start: Start, postgresql_url: str, postgresql: PostgreSQL
) -> None:
    node = start(url=postgresql_url)
    slices = [ct(n) for n in range(6)]
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        assert scu.store(slices[0]) == SUCCESS
        postgresql.pause()
        try:
            scu.begin_store(slices[1])
            scu.send_data(ct(), slices[1].data)
            answer = scu.response()
            assert answer.Status == OUT_OF_RESOURCES
            assert "database" in answer.ErrorComment
            with ThreadPoolExecutor(4) as pool:
                refused = list(pool.map(lambda one: store_all(node.port, [one]), slices[2:]))
            assert refused == [[OUT_OF_RESOURCES]] * 4
            assert scu.echo() == SUCCESS
            with Scu(node.port) as stranger, pytest.raises(Rejected):
                stranger.associate(calling="NOBODY")
        finally:
            postgresql.resume()
        assert [scu.store(one) for one in slices] == [SUCCESS] * 6
        scu.release()
    assert len(node.stored()) == 6
    assert len([name for name in node.files() if name.startswith(("incoming/", "instances/"))]) == 6
    # what could not be written down meanwhile has been kept in mind
    assert len(node.soon(lambda: node.events("association rejected"))) == 1
    assert len(node.soon(lambda: node.events("instance refused"))) == 5
    node.soon(lambda: len([row for row in node.rows(t.association) if row.ended_at]) == 5)


def test_a_receiver_may_start_before_its_database(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "database"
    node = start(url=f"sqlite:///{folder / 'node.db'}", migrated=False)
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        assert scu.store(ct()) == OUT_OF_RESOURCES
        folder.mkdir()
        migrate.upgrade(node.url)
        assert scu.store(ct()) == SUCCESS
    assert len(node.stored()) == 1


def test_a_database_that_hangs_keeps_no_peer_waiting_for_ever(start: Start, database_url: str) -> None:
    node = start(url=database_url, answer_timeout_s=1.0)
    with held(database_url), Scu(node.port) as scu, Scu(node.port) as other:
        scu.associate_for(ct())
        scu.begin_store(ct())
        scu.send_data(ct(), ct().data)
        assert other.associate().echo() == SUCCESS
        assert scu.pdu()[0] == A_ABORT
    assert store_all(node.port, [ct()]) == [SUCCESS], "it was stored meanwhile, or is now"
    assert len(node.rows(t.instance)) == 1
    assert len(node.stored()) == 1
    ended = node.soon(lambda: [row.end_reason for row in node.rows(t.association) if row.ended_at])
    assert "aborted: neither disk nor database answered for 1 s" in ended


def test_a_lock_that_somebody_keeps_is_not_waited_for_longer_than_on_sqlite(
    start: Start, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"lock_timeout={database.BUSY_TIMEOUT_MS}" in database._PATIENCE["options"]
    monkeypatch.setitem(database._PATIENCE, "options", "-c lock_timeout=300")
    node = start(url=postgresql_url)
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        with held(postgresql_url):
            assert scu.store(ct()) == OUT_OF_RESOURCES
        assert scu.store(ct()) == SUCCESS
    assert len(node.stored()) == 1


def test_a_spool_that_cannot_be_written_refuses_until_it_can_be(start: Start) -> None:
    node = start()
    incoming, aside = node.spool.root / "incoming", node.spool.root / "aside"
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        incoming.rename(aside)
        incoming.symlink_to("/sys")  # a real file system in which nobody may make a file, not even root
        scu.begin_store(ct())
        scu.send_data(ct(), ct().data)
        answer = scu.response()
        assert answer.Status == OUT_OF_RESOURCES
        assert answer.ErrorComment.startswith("the spool cannot be written: ")
        incoming.unlink()
        aside.rename(incoming)
        assert scu.store(ct()) == SUCCESS
    assert len(node.stored()) == 1
