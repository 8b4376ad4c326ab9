"""The spool: whole files or none, inside its folder, and nobody's debris."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from dicom_node.digest import digest_of
from dicom_node.errors import SpoolError
from dicom_node.spool import Incoming, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", reserve_mib=0)
    made.prepare()
    return made


def arrived(spool: Spool, data: bytes = b"data set") -> Incoming:
    one = spool.incoming()
    one.write_prefix(b"prefix")
    one.write(data[:3])
    one.write(memoryview(data)[3:])
    return one


def files(spool: Spool) -> list[str]:
    return sorted(str(path.relative_to(spool.root)) for path in spool.root.rglob("*") if path.is_file())


def test_an_arrived_file_is_kept_whole_and_hashed_without_its_prefix(spool: Spool) -> None:
    one = arrived(spool)
    assert one.read(5, 100) == b"set"
    (path,) = spool.keep([one])
    assert spool.path(path).read_bytes() == b"prefixdata set"
    assert (one.size, one.digest) == (14, digest_of(b"data set"))
    assert files(spool) == [path]


def test_many_files_kept_at_once_stand_in_the_order_given(spool: Spool) -> None:
    paths = spool.keep([arrived(spool, b"%03d" % n) for n in range(20)])
    assert [spool.path(path).read_bytes()[-3:] for path in paths] == [b"%03d" % n for n in range(20)]


def test_when_one_of_a_group_cannot_be_synced_none_is_kept(spool: Spool) -> None:
    group = [arrived(spool) for _ in range(3)]
    os.close(group[1]._fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        spool.keep(group)
    assert files(spool) == []


def test_when_one_of_a_group_cannot_be_renamed_none_is_kept_and_none_stays_open(spool: Spool) -> None:
    before = open_files()
    group = [arrived(spool) for _ in range(3)]
    group[2].path.unlink()
    with pytest.raises(FileNotFoundError):
        spool.keep(group)
    assert files(spool) == []
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_keeping_goes_on_when_the_folder_of_the_hour_was_removed(spool: Spool) -> None:
    (first,) = spool.keep([arrived(spool)])
    shutil.rmtree((spool.root / first).parent)
    (second,) = spool.keep([arrived(spool)])
    assert files(spool) == [second]


def test_sweeping_at_any_moment_costs_no_arrival(spool: Spool) -> None:
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            Spool(spool.root).sweep_incoming()

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        paths = [path for n in range(300) for path in spool.keep([arrived(spool, b"%03d" % n)])]
    finally:
        done.set()
        sweeping.join()
    assert [spool.path(path).read_bytes()[-3:] for path in paths] == [b"%03d" % n for n in range(300)]


def test_a_discarded_file_leaves_nothing(spool: Spool) -> None:
    one = arrived(spool)
    one.discard()
    one.discard()
    assert files(spool) == []


def test_a_result_is_replaced_as_a_whole(spool: Spool) -> None:
    first = spool.write("results/job", "seg.dcm", b"first")
    assert first == ("results/job/seg.dcm", 5, hashlib.sha256(b"first").hexdigest())
    spool.write("results/job", "seg.dcm", b"second")
    assert spool.path("results/job/seg.dcm").read_bytes() == b"second"
    assert files(spool) == ["results/job/seg.dcm"]
    spool.delete("results/job/seg.dcm")
    spool.delete("results/job/seg.dcm")
    with pytest.raises(SpoolError, match=r"no file results/job/seg\.dcm"):
        spool.path("results/job/seg.dcm")


@pytest.mark.parametrize("path", ["../outside", "instances/../../outside", "/etc/hostname"])
def test_no_path_leads_out_of_the_spool(spool: Spool, path: str) -> None:
    (spool.root.parent / "outside").write_text("not ours")
    for step in (spool.path, spool.delete):
        with pytest.raises(SpoolError, match="no path inside"):
            step(path)
    with pytest.raises(SpoolError, match="no path inside"):
        spool.write(path, "seg.dcm", b"")
    assert (spool.root.parent / "outside").read_text() == "not ours"


def test_sweeping_takes_what_a_dead_receiver_left_and_nothing_that_still_arrives(spool: Spool) -> None:
    alive, dead = arrived(spool), arrived(spool)
    os.close(dead._fd)  # as the kernel does for a process that has been killed
    assert spool.sweep_incoming() == 1
    assert files(spool) == [str(alive.path.relative_to(spool.root))]
    (path,) = spool.keep([alive])
    assert files(spool) == [path]


def test_orphans_are_old_files_without_a_row(spool: Spool) -> None:
    known, orphan, young = spool.keep([arrived(spool) for _ in range(3)])
    for path in (known, orphan):
        os.utime(spool.path(path), (time.time() - 100, time.time() - 100))
    asked: list[str] = []

    def rows(paths: Sequence[str]) -> set[str]:
        asked.extend(paths)
        return {known}

    assert spool.sweep_orphans(rows, older_than_s=50) == 1
    assert files(spool) == sorted([known, young])
    assert sorted(asked) == sorted([known, orphan])


def test_a_spool_is_full_at_its_reserve(spool: Spool) -> None:
    assert not spool.is_full()
    spool.reserve_mib = spool.free_bytes() // 2**20 + 1000
    assert spool.is_full()


def test_a_spool_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="file/spool cannot be used"):
        Spool(tmp_path / "file" / "spool").prepare()
