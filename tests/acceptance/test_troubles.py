"""What goes wrong in hospitals: each ends as a user would wish, and `dicom-node explain` says so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_node.deliver.dimse import FileSent, send_files
from dicom_node.errors import DeliveryError
from tests.ct import small_ct
from tests.node import RunningNode, wait_for
from tests.peers.orthanc import Orthanc

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def node(orthanc_module: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    home = tmp_path_factory.mktemp("node") / "home"
    running = RunningNode(home, orthanc_module.dicom_port, orthanc_module.ae, quiet_s=1.0).start()
    yield running
    running.stop()


@pytest.fixture
def pacs(orthanc_module: Orthanc) -> Orthanc:
    """The PACS of all these tests, with nothing in it."""
    orthanc_module.clear()
    return orthanc_module


def test_a_pacs_that_is_down_gets_its_results_when_it_is_back(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    pacs.stop()
    try:
        uid = send(node, small_ct(tmp_path / "ct", slices=30))

        def waits() -> bool:
            found = node.jobs(uid)
            return (
                bool(found) and found[0]["state"] == "completed" and any(d["attempt"] for d in found[0]["deliveries"])
            )

        wait_for(waits, 240, lambda: node.log.read_text()[-4000:])
        story = node.ask("explain", uid)
        assert "not yet delivered to pacs" in story
        assert "no connection" in story
    finally:
        pacs.start()

    job = node.finished(uid)

    assert [d["state"] for d in job["deliveries"]] == ["delivered"] * len(job["deliveries"])
    assert len(pacs.instances()) == len(job["results"]) > 0
    assert "Result delivered to pacs" in node.ask("explain", uid)


def test_every_faulty_series_ends_with_its_reason(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    gap = send(node, small_ct(tmp_path / "gap", slices=30, change=without_slice_12))
    scout = send(node, small_ct(tmp_path / "scout", slices=30, change=with_a_localizer))
    broken = send(node, small_ct(tmp_path / "broken", slices=30, change=cut_short))

    refused, completed, failed = (node.finished(uid) for uid in (gap, scout, broken))

    assert refused["state"] == "failed"
    assert refused["attempt"] == 0, "no model ran"
    assert (refused["failure"], failed["failure"]) == ("not eligible", "not eligible")
    assert "gap" in refused["error"] or "missing" in refused["error"], refused["error"]
    assert refused["error"].rstrip(".") in node.ask("explain", gap)
    assert completed["state"] == "completed"
    assert "localizer" in node.ask("explain", scout).lower()
    assert failed["state"] == "failed"
    assert failed["error"].rstrip(".") in node.ask("explain", broken)
    at_pacs = [dcmread(BytesIO(data)) for data in pacs.files()]
    for job, series in ((refused, gap), (failed, broken)):
        assert {r["summary"]["not_analysed"] for r in job["results"]} == {"not eligible"}
        assert [(d["kind"], d["state"]) for d in job["deliveries"]] == [("sr", "delivered")], "the others stand by"
        (report,) = [r for r in job["results"] if r["kind"] == "sr"]
        assert "pacs was told at" in node.ask("explain", series).splitlines()[-1]
        (sr,) = [ds for ds in at_pacs if ds.SOPInstanceUID == report["sop_instance_uid"]]
        assert sr.SeriesDescription.startswith("NOT ANALYSED (not eligible)")
        assert job["error"].rstrip(".") in sr.to_json()
    assert len(at_pacs) == len(completed["results"]) + 2, "a result, or the report that there is none"


def test_an_unknown_caller_is_turned_away_and_explain_says_what_to_do(node: RunningNode, tmp_path: Path) -> None:
    files = small_ct(tmp_path / "ct", slices=3)

    with pytest.raises(DeliveryError, match="calling AE title"):
        send_files(files, "127.0.0.1", node.port, "AINODE", "STRANGER")

    explain = node.command("explain", "STRANGER")  # knows it a moment later: the receiver writes down in batches
    said = wait_for(lambda: subprocess.run(explain, capture_output=True, text=True, check=False).stdout, 180)
    assert "receive.peers" in said


def test_a_full_disk_makes_the_peer_keep_what_it_has(pacs: Orthanc, tmp_path: Path) -> None:
    more_than_any_disk_mib = 2**40
    node = RunningNode(tmp_path / "full", pacs.dicom_port, pacs.ae, reserve_mib=more_than_any_disk_mib).start()
    try:
        files = small_ct(tmp_path / "ct", slices=3)

        sent = send_files(files, "127.0.0.1", node.port, "AINODE", "SCANNER")

        assert [s.status for s in sent] == [0xA700] * 3
        assert "MiB free in the spool" in node.ask("explain", str(dcmread(files[0]).SOPInstanceUID))
        assert not list((node.home / "spool" / "instances").rglob("*.dcm"))
    finally:
        node.stop()


def test_a_long_ae_title_refuses_to_start_and_names_file_and_key(tmp_path: Path) -> None:
    node = RunningNode(tmp_path / "home", 104, "ORTHANC")
    text = node.settings.read_text().replace('ae_title = "AINODE"', f'ae_title = "{30 * "A"}"')
    node.settings.write_text(text)

    done = subprocess.run(node.command("serve"), capture_output=True, text=True, check=False, timeout=180)

    assert done.returncode == 2
    assert str(node.settings) in done.stderr
    assert "node.ae_title" in done.stderr
    assert "16 characters" in done.stderr
    assert "Traceback" not in done.stderr


def send(node: RunningNode, files: list[Path]) -> str:
    """Send a series that has to be stored whole; its UID."""
    sent: list[FileSent] = send_files(files, "127.0.0.1", node.port, "AINODE", "SCANNER")
    assert [s.status for s in sent] == [0x0000] * len(files)
    return str(dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def without_slice_12(number: int, ds: Dataset) -> Dataset | None:
    return None if number == 12 else ds


def with_a_localizer(number: int, ds: Dataset) -> Dataset:
    if number == 29:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        ds.SOPInstanceUID = generate_uid()
    return ds


def cut_short(number: int, ds: Dataset) -> Dataset:
    if number == 7:
        ds.PixelData = ds.PixelData[:1000]
    return ds
