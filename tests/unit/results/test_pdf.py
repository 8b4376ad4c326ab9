"""The report on paper, as a reader of PDF gives it back."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pypdfium2
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EncapsulatedPDFStorage

from dicom_node.domain.finding import NotRun
from dicom_node.domain.model import OutputKind
from dicom_node.spool import Spool
from tests.peers.validators import problems
from tests.unit.results.case import CARD, NODULES, boxes, build, built_of, make_case, nodules
from tests.unit.results.test_header import with_attributes

ONLY = replace(CARD, outputs=(OutputKind.PDF,), detections=(NODULES,))


def text_of(data: bytes) -> str:
    document: Dataset = dcmread(BytesIO(data))
    held = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    pages = pypdfium2.PdfDocument(held)
    text = "\n".join(page.get_textpage().get_text_range() for page in pages)
    pages.close()
    return " ".join(text.split())


def test_report_names_patient_findings_and_model_and_what_it_is_not_for(tmp_path: Path, spool: Spool) -> None:
    changed = with_attributes(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg", StudyDescription="Thorax")
    case = make_case(tmp_path / "ct", change=changed)
    prediction, findings = nodules(case)
    partial = replace(findings, not_run=(NotRun("Nodule classification", "slice spacing 8 mm"),))
    built = built_of(case, prediction, partial, spool, ONLY)
    document = dcmread(BytesIO(built.files["pdf"]))
    source = case.volume.datasets[0]
    assert document.SOPClassUID == EncapsulatedPDFStorage
    assert document.MIMETypeOfEncapsulatedDocument == "application/pdf"
    said = text_of(built.files["pdf"])
    for expected in (
        "Müller Jörg",
        source.PatientID,
        source.StudyInstanceUID,
        "Thorax",
        "RESEARCH ONLY - NOT FOR DIAGNOSTIC USE",
        "Nodule classification not run: slice spacing 8 mm.",
        "Nodule 1, left lung",
        "Long Axis 8.4 mm",
        "Volume 810 mm3",
        "Lung-RADS 2022 category 4A",
        "not for clinical use",
        "lung_ct 0.1.0+sha256.cdcdcdcdcdcd",
    ):
        assert expected.lower() in said.lower(), expected
    assert problems(built.files["pdf"], sources=case.sources) == []


@pytest.mark.parametrize(
    "name", ["Yamada^Tarou=山田^太郎=やまだ", "Ιωάννου^Άννα", "Иванов^Пётр", "김^민수", "<b>Smith</b>^&"]
)
def test_names_in_any_letters_are_printed(name: str, tmp_path: Path, spool: Spool) -> None:
    changed = with_attributes(SpecificCharacterSet="ISO_IR 192", PatientName=name)
    case = make_case(tmp_path / "ct", slices=20, change=changed)
    said = text_of(build(case, boxes(case), spool, ONLY).files["pdf"])
    assert name.replace("^", " ") in said
    assert "Nothing was found in 20 images: no nodule." in said


def test_same_analysis_makes_the_same_bytes(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    first, second = (built_of(case, prediction, findings, spool, ONLY).files["pdf"] for _ in range(2))
    assert first == second
