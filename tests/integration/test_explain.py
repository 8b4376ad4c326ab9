"""`explain`: the story of a series, found by whatever an operator has in hand, ending in an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_node.db.audit import record
from dicom_node.db.engine import transaction
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import Sent
from dicom_node.domain.uids import result_uid
from dicom_node.errors import DeliveryError, NotFoundError
from tests.ct import small_ct
from tests.integration.operated import Operated, operated


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        yield made


def in_order(text: str, *parts: str) -> None:
    """Assert that the parts stand in the text, one after the other."""
    place = 0
    for part in parts:
        found = text.find(part, place)
        assert found >= 0, f"{part!r} is not in its place in:\n{text}"
        place = found + len(part)


def test_the_story_of_a_series_from_its_association_to_its_delivery(node: Operated, tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=8)
    ds = dcmread(paths[0])
    node.receive(paths)
    (job,) = node.jobs()
    assert "no worker is alive" in node.told(job["id"])

    node.complete(job["id"])
    node.send(
        DeliveryError("no connection to pacs", retry=True),
        DeliveryError("pacs answered 0xA700 (out of resources)", retry=True, status=0xA700),
        Sent(0x0000),
        Sent(0xB000),
    )

    story = node.told(job["id"])
    in_order(
        story,
        str(ds.SeriesInstanceUID),
        "8 instances",
        "association from CT1 (127.0.0.1) to AINODE: 8 instances",
        "Explicit VR Little Endian",
        "complete, revision 1: quiet for",
        "8 slices, 2.5 mm apart",
        "rule chest matched: Modality is CT: yes; slices at least 5: yes",
        f"job {job['id'][:8]} scheduled: lung 1, rule chest, priority routine, results to pacs",
        "attempt 1 of 3 started on host",
        "completed in",
        "(infer 1.5)",
        f"SEG {result_uid(job['id'], 'seg')}, 1.00 MB: Left lung 1883 ml",
        "SEG to pacs, attempt 1 failed: no connection to pacs",
        "SEG to pacs, attempt 2 failed 0xA700 Out of resources: pacs answered",
        "SEG to pacs, attempt 3 delivered 0x0000 Success",
        "SR to pacs, attempt 1 delivered 0xB000 Warning",
        "Result delivered to pacs at ",
    )
    names = [
        job["id"][:8], job["id"], ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID,
        result_uid(job["id"], "sr"), ds.AccessionNumber, ds.PatientID,
    ]  # fmt: skip
    assert {node.told(str(name)) for name in names} == {story}
    assert str(ds.PatientName) not in story


def test_when_there_is_no_result_the_last_line_says_why_and_what_to_do(node: Operated, tmp_path: Path) -> None:
    def gap(number: int, ds: Dataset) -> Dataset | None:
        return None if number == 4 else ds

    node.receive(small_ct(tmp_path / "gap", slices=8, change=gap))
    (refused,) = node.jobs(state="failed")
    in_order(
        node.told(refused["id"]),
        "refused: ",
        "rule chest matched",
        f"job {refused['id'][:8]} failed: ",
        "No result of lung: ",
    )
    assert "retry" not in node.told(refused["id"]).splitlines()[-1], "another run would be refused, too"

    few = small_ct(tmp_path / "few", slices=3)
    node.receive(few)
    series = str(dcmread(few[0]).SeriesInstanceUID)
    in_order(node.told(series), "no rule matched", "slices at least 5: no, 3", "No result: no rule matched")

    node.receive(paths := small_ct(tmp_path / "ct", slices=8))
    (job,) = node.jobs(state="scheduled")
    node.complete(job["id"])
    assert "no deliverer is alive" in node.told(job["id"]).splitlines()[-1]
    node.send(DeliveryError("pacs answered 0xC000 (cannot understand)", retry=False, status=0xC000))
    last = node.told(job["id"]).splitlines()[-1]
    in_order(
        last,
        "Result made, but delivery of SEG to pacs failed: pacs answered 0xC000",
        f"do `dicom-node resend {job['id'][:8]}`",
    )

    late = dcmread(paths[0])
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    late.save_as(tmp_path / "late.dcm")
    node.receive([tmp_path / "late.dcm"])
    in_order(
        node.told(job["id"]), "reopened: 1 instance came after revision 1", "complete, revision 2", "No result of lung"
    )


def test_what_was_refused_at_the_door_is_told(node: Operated) -> None:
    refused = {
        "status": "0xA700",
        "reason": "less than 512 MiB free in the spool",
        "from": "CT1",
        "address": "10.0.0.5",
    }
    rejected = {"from": "STRANGER", "to": "AINODE", "address": "10.0.0.9", "reason": "the calling AE title is unknown"}
    with transaction(node.engine) as tx:
        record(tx, AuditEvent(Event.ASSOCIATION_REJECTED, detail=rejected))
        for n in range(3):
            record(tx, AuditEvent(Event.INSTANCE_REFUSED, detail={"instance": f"1.2.{n}", **refused}))
    assert "association from STRANGER (10.0.0.9) to AINODE rejected: the calling AE title" in node.told("STRANGER")
    in_order(node.told("CT1"), "instance 1.2.0 from CT1 refused with 0xA700", "and 2 more instances likewise")
    assert "1.2.1 from CT1" in node.told("1.2.1")


@pytest.mark.parametrize("text", ["1.2.3.4", "A999", "", "%", "abcd"])
def test_what_nobody_knows_is_an_error_with_a_hint(node: Operated, tmp_path: Path, text: str) -> None:
    node.receive(small_ct(tmp_path / "ct", slices=8))
    with pytest.raises(NotFoundError, match="dicom-node jobs"):
        node.told(text)
