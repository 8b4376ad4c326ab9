"""A newer result has the older ones rejected."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from dicom_node.domain.delivery import FolderDestination
from dicom_node.domain.job import Document
from dicom_node.domain.model import OutputKind
from dicom_node.domain.outdated import Outdated, grouped, why_left
from dicom_node.errors import ResultError
from dicom_node.results import build_rejections
from dicom_node.spool import Spool
from tests.peers.validators import problems
from tests.unit.results.case import CARD, EQUIPMENT, make_case

SEG = Document("seg", SegmentationStorage, "1.2.3.1", "1.2.3.2")
SR = Document("sr", Comprehensive3DSRStorage, "1.2.3.3", "1.2.3.4")


def test_destinations_that_hold_the_same_share_a_document() -> None:
    held = {"pacs": [SR, SEG], "archive": [SEG, SR], "viewer": [SR], "late": [], "off": [SR]}
    assert grouped(held, {"off": "as its settings say"}) == (
        Outdated(("archive", "pacs"), (SEG, SR)),
        Outdated(("off",), (SR,), "as its settings say"),
        Outdated(("viewer",), (SR,)),
    )
    assert why_left(FolderDestination(name="f", path=Path(), reject_superseded=False), None) == "as its settings say"
    assert why_left(None, None) == "the settings do not name it any more"


def test_a_document_rejects_what_its_destinations_hold_and_nothing_else(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    groups = (Outdated(("a", "b"), (SEG, SR)), Outdated(("c",), (SR,)), Outdated(("d",), (SEG,), "it does not want it"))
    made = build_rejections(case.job, CARD, case.volume.datasets[0], EQUIPMENT, groups, spool)
    assert [(each.name, each.only_for) for each in made] == [("rejection", ("a", "b")), ("rejection-2", ("c",))]
    assert {OutputKind.of(each.name) for each in made} == {OutputKind.REJECTION}
    files = [spool.path(each.path).read_bytes() for each in made]
    assert [named(dcmread(BytesIO(data))) for data in files] == [
        [("IMAGE", "1.2.3.1"), ("COMPOSITE", "1.2.3.3")],
        [("COMPOSITE", "1.2.3.3")],
    ]
    [title] = dcmread(BytesIO(files[0])).ConceptNameCodeSequence
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    assert problems(*files, sources=case.sources) == []


def test_the_same_is_rejected_by_the_same_bytes_and_something_else_by_another_object(
    tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct")

    def write(*objects: Document) -> tuple[str, str]:
        held = (Outdated(("pacs",), objects),)
        [made] = build_rejections(case.job, CARD, case.volume.datasets[0], EQUIPMENT, held, spool)
        return made.sop_instance_uid, made.sha256

    assert write(SEG, SR) == write(SEG, SR)
    assert write(SEG, SR)[0] != write(SR)[0]


def test_a_header_that_cannot_be_carried_over_fails_the_attempt(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    job = replace(case.job, instances=())
    held = (Outdated(("pacs",), (SR,)),)
    with pytest.raises(ResultError, match="cannot be rejected"):
        build_rejections(job, CARD, case.volume.datasets[0], EQUIPMENT, held, spool)


def named(document: Dataset) -> list[tuple[str, str]]:
    """What a key object selection names, and as what; all of it has to be in its evidence."""
    found = []
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE"):
            assert "ConceptNameCodeSequence" not in item
            found.append((str(item.ValueType), str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)))
    [study] = document.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == document.StudyInstanceUID
    evidence = {o.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for o in s.ReferencedSOPSequence}
    assert evidence == {uid for _, uid in found}
    return found
