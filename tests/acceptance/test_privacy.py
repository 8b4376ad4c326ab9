"""A marked patient goes the whole road, well and badly; no log, metric, notification or error shows who it is."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, Comprehensive3DSRStorage, SegmentationStorage
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from dicom_node.deliver.dimse import send_files
from dicom_node.errors import DeliveryError
from tests.ct import small_ct
from tests.integration.deliver.peer import Scp
from tests.integration.test_notify import Hook
from tests.node import RunningNode, wait_for

PATIENT = {
    "PatientName": "Zyxwvut^Qqanna", "PatientID": "PID-ZZQX-1", "PatientBirthDate": "19310203",
    "AccessionNumber": "ACC-ZZQX-2", "PatientAddress": "ZZQX-Street 3", "OtherPatientIDs": "PID-ZZQX-4",
    "ReferringPhysicianName": "Ploknij^Doctor", "PatientComments": "Mujnhyb", "StudyDescription": "Gtfrcde for Qqanna",
}  # fmt: skip
MARKS = ("zyxwvut", "qqanna", "zzqx", "19310203", "1931-02-03", "ploknij", "mujnhyb")
NOWHERE = ("zyxwvut", "19310203", "1931-02-03", "ploknij", "mujnhyb", "zzqx-street")  # not even in the database

SETTINGS = """
[logs]
level = "debug"
format = "json"

[audit]
chain_every_s = 0.5

[notify.channels.hook]
kind = "webhook"
url = "{hook}"

[notify.rules.found]
on = "finding"
to = ["hook"]

[notify.rules.failed]
on = "failure"
to = ["hook"]

[notify.rules.unfit]
on = "not eligible"
to = ["hook"]

[notify.rules.refused]
on = "delivery failed"
to = ["hook"]
"""
RULE = """\
model = "lung_ct"
destinations = ["pacs"]

[when]
PatientID = { not = ["nobody"] }
AccessionNumber = { exists = true }
Modality = "CT"
slices = { at_least = 10 }
"""


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


def marked(number: int, ds: Dataset) -> Dataset:
    for keyword, value in PATIENT.items():
        setattr(ds, keyword, value)
    return ds


def cut_short(number: int, ds: Dataset) -> Dataset:
    ds = marked(number, ds)
    if number == 7:
        ds.PixelData = ds.PixelData[:1000]
    return ds


def with_a_gap(number: int, ds: Dataset) -> Dataset | None:
    return None if number == 12 else marked(number, ds)


@pytest.mark.timeout(400)
def test_nothing_that_leaves_the_node_beside_its_results_shows_the_patient(tmp_path: Path, hook: Hook) -> None:
    statuses = (0x0000, 0x0000, 0xC000)  # the first series arrives; of the others every object is refused
    classes = (SegmentationStorage, Comprehensive3DSRStorage, UID(Verification))
    with Scp(statuses=statuses, classes=classes) as pacs:
        node = RunningNode(tmp_path / "home", pacs.port, "PACS", quiet_s=1.0)
        node.settings.write_text(node.settings.read_text() + SETTINGS.format(hook=hook.url))
        (node.home / "rules" / "chest_ct.toml").write_text(RULE)
        node.start()
        metrics = subprocess.Popen(
            [*node.command("metrics"), "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
        )
        try:
            said = road(node, tmp_path)
            assert metrics.stderr is not None
            url = metrics.stderr.readline().strip()
            for path in ("/metrics", "/health", "/ready", "/PID-ZZQX-1"):
                said[path] = fetch(url.replace("/metrics", path))
            wait_for(lambda: len(hook.posts) >= 3, 30, lambda: f"{hook.told()}")
            said["notifications"] = "\n".join(body.decode() for _, body in hook.posts)
        finally:
            metrics.terminate()
            said_by_metrics = metrics.communicate()[1]
            node.stop()
    said["metrics process"] = said_by_metrics
    said["log"] = node.log.read_text()
    assert {one["on"] for one in hook.told()} >= {"finding", "not eligible", "delivery failed"}
    assert "dicom_node_events_total" in said["/metrics"]
    assert all(json.loads(line) for line in said["log"].splitlines())
    assert '"level": "debug"' in said["log"]

    shown = {where: [mark for mark in MARKS if mark in text.casefold()] for where, text in said.items()}

    assert {where: marks for where, marks in shown.items() if marks} == {}
    database = b"".join(path.read_bytes() for path in node.home.glob("node.db*")).lower()
    assert b"pid-zzqx-1" in database, "by it the node is asked for results"
    assert [mark for mark in NOWHERE if mark.encode() in database] == []


def road(node: RunningNode, tmp_path: Path) -> dict[str, str]:
    """Send series that end well, as no volume, unreadable, unmatched, by a stranger; what commands say of them."""
    files = small_ct(tmp_path / "good", slices=30, change=marked)
    done = node.finished(send(node, files), timeout_s=300)
    assert [d["state"] for d in done["deliveries"]] == ["delivered"] * len(done["deliveries"])
    for name, change in (("gap", with_a_gap), ("cut", cut_short)):
        failed = node.finished(send(node, small_ct(tmp_path / name, slices=30, change=change)), timeout_s=300)
        assert failed["state"] == "failed"
    few = send(node, small_ct(tmp_path / "few", slices=3, change=marked))
    wait_for(lambda: "no rule matched" in node.ask("explain", few), 120)
    with pytest.raises(DeliveryError):
        send_files(files, "127.0.0.1", node.port, "AINODE", "STRANGER")
    twin = dcmread(files[0])
    twin.PatientComments = "Mujnhyb again"
    twin.save_as(tmp_path / "twin.dcm")
    (sent,) = send_files([tmp_path / "twin.dcm"], "127.0.0.1", node.port, "AINODE", "SCANNER")
    assert sent.status == 0x0111
    report = tmp_path / "report.zip"
    node.ask("export", done["id"], "--deidentify", "--pixels", "--results", "-o", str(report))
    with zipfile.ZipFile(report) as archive:
        said = {f"report: {name}": archive.read(name).decode("latin-1") for name in archive.namelist()}
    for words in (("retry", done["id"][:2]), ("cancel", done["id"]), ("check", "--echo"), ("retain", "--dry-run")):
        run = subprocess.run(node.command(*words), capture_output=True, text=True, check=False, timeout=180)
        said[" ".join(words[:1])] = run.stdout + run.stderr
    said["audit verify"] = node.ask("audit", "verify")
    said["audit list"] = node.ask("audit", "list")
    return said


def send(node: RunningNode, files: list[Path]) -> str:
    sent = send_files(files, "127.0.0.1", node.port, "AINODE", "SCANNER")
    assert [s.status for s in sent] == [0x0000] * len(files)
    return str(dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())
