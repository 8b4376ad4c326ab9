"""Which images to look at."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.domain.model import OutputKind
from dicom_node.spool import Spool
from tests.peers.validators import problems
from tests.unit.results.case import CARD, NODULES, boxes, build, built_of, make_case, nodules

ONLY = replace(CARD, outputs=(OutputKind.KOS,), detections=(NODULES,))


def concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def test_selection_names_the_slice_on_which_each_finding_is_largest(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, ONLY)
    kos = dcmread(BytesIO(built.files["kos"]))
    [title] = kos.ConceptNameCodeSequence
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113000", "DCM")
    images = [item for item in kos.ContentSequence if item.ValueType == "IMAGE"]
    assert all("ConceptNameCodeSequence" not in item for item in images)
    uids = [str(ds.SOPInstanceUID) for ds in case.volume.datasets]
    assert [uids.index(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for i in images] == [5, 8]
    [said] = [item.TextValue for item in kos.ContentSequence if item not in images and concept(item) == "113012"]
    assert said == "RESEARCH ONLY - NOT FOR DIAGNOSTIC USE. Nodule 1: 8.4 mm; Nodule 2: 4.2 mm"
    assert problems(built.files["kos"], sources=case.sources) == []
    assert list(build(case, boxes(case), spool, ONLY).files) == ["sr"]
