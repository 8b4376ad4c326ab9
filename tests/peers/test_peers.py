"""The peers themselves: what the other tests lean on has to be there, and has to notice a fault."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import create_engine, text

from tests.ct import small_ct
from tests.node import wait_for
from tests.peers.missing import need
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import FOLDERS, PostgreSQL
from tests.peers.tools import dcmtk
from tests.peers.validators import problems


def send(orthanc: Orthanc, *files: Path, succeeds: bool = True) -> str:
    called = ("-aec", orthanc.ae, "127.0.0.1", str(orthanc.dicom_port))
    return dcmtk("storescu", *called, *map(str, files), succeeds=succeeds)


def test_orthanc_holds_what_it_was_sent_over_a_stop_and_a_start(orthanc: Orthanc, tmp_path: Path) -> None:
    files = small_ct(tmp_path / "ct", slices=3)
    send(orthanc, *files)
    orthanc.stop()
    send(orthanc, files[0], succeeds=False)
    orthanc.start()
    sent = {dcmread(path).SOPInstanceUID for path in files}
    for number, content in enumerate(orthanc.files()):
        (tmp_path / f"{number}.dcm").write_bytes(content)
        sent.remove(dcmread(tmp_path / f"{number}.dcm").SOPInstanceUID)
    assert not sent
    assert len(orthanc.get("/dicom-web/studies")) == 1


def test_each_postgresql_database_is_empty_and_outlives_a_pause(postgresql: PostgreSQL) -> None:
    first, second = (create_engine(postgresql.database().replace("://", "+psycopg://")) for _ in range(2))
    with first.begin() as tx:
        tx.execute(text("CREATE TABLE series (uid TEXT)"))
    first.dispose()
    postgresql.pause()
    postgresql.resume()
    tables = text("SELECT count(*) FROM information_schema.tables WHERE table_name = 'series'")
    with first.begin() as one, second.begin() as two:
        assert (one.scalar(tables), two.scalar(tables)) == (1, 0)
    first.dispose()
    second.dispose()


def test_the_validators_accept_the_synthetic_ct_and_name_each_fault(tmp_path: Path) -> None:
    series = small_ct(tmp_path, slices=3)
    assert problems(*(path.read_bytes() for path in series[:2]), sources=series[2:]) == []

    broken = dcmread(series[0])
    del broken.ImagePositionPatient
    broken.PatientID = "SOMEBODY ELSE"
    broken.save_as(tmp_path / "broken.dcm")
    found = "\n".join(problems((tmp_path / "broken.dcm").read_bytes(), sources=series[1:]))
    assert "ImagePositionPatient" in found
    assert "PatientID" in found


def test_a_missing_peer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PEERS", raising=False)
    with pytest.raises(pytest.fail.Exception, match=r"no-such-peer is not installed.*deploy/peers\.sh"):
        need("no-such-peer")


def test_a_missing_peer_is_skipped_only_when_no_peers_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERS", "none")
    with pytest.raises(pytest.skip.Exception, match=r"^PEERS=none: no-such-peer"):
        need("no-such-peer")


def test_peers_end_with_tests_that_are_killed(tmp_path: Path) -> None:
    need("initdb", folders=FOLDERS)
    script = """
import sys, time
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import FOLDERS, PostgreSQL
orthanc, postgresql = Orthanc(Path(sys.argv[1])).start(), PostgreSQL()
print(orthanc.dicom_port, postgresql.port, postgresql.folder, flush=True)
time.sleep(100)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        *numbers, folder = tests.stdout.readline().split()
        ports = [int(number) for number in numbers]
        assert [answers(port) for port in ports] == [True, True]
        tests.kill()
    wait_for(lambda: not any(map(answers, ports)), 30, lambda: "a peer outlived its tests")
    shutil.rmtree(folder)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
