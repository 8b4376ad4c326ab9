"""That there is no result is said to whoever takes no structured report, too."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread

from dicom_node.domain.model import OutputKind
from dicom_node.results import build_report
from dicom_node.spool import Spool
from tests.ct import small_ct
from tests.peers.validators import problems
from tests.unit.results.case import CARD, EQUIPMENT
from tests.unit.results.test_pdf import text_of
from tests.unit.results.test_unanalysed import GAP, failed_job


def test_paper_and_picture_say_what_the_report_says(tmp_path: Path, spool: Spool) -> None:
    sources = small_ct(tmp_path / "ct", slices=8)
    received = [dcmread(path) for path in sources]
    forms = (OutputKind.PDF, OutputKind.SC)

    def made() -> dict[str, bytes]:
        results = build_report(failed_job(received), CARD, received[0], EQUIPMENT, spool, forms)
        assert {each.summary["not_analysed"] for each in results} == {"not eligible"}
        return {each.name: spool.path(each.path).read_bytes() for each in results}

    files = made()
    assert list(files) == ["pdf", "sc", "sr"]
    assert made() == files
    said = text_of(files["pdf"])
    patient = str(received[0].PatientName).replace("^", " ")
    for expected in ("NOT ANALYSED (not eligible)", GAP, "No model was run.", patient, "NOT FOR DIAGNOSTIC USE"):
        assert expected in said, expected
    picture, document, report = (dcmread(BytesIO(files[kind])) for kind in ("sc", "pdf", "sr"))
    assert {ds.SeriesDescription for ds in (picture, document)} == {report.SeriesDescription}
    assert "NOT ANALYSED (not eligible)" in picture.DerivationDescription
    assert np.ptp(picture.pixel_array) > 200, "something is written on it"
    assert problems(*files.values(), sources=sources) == []
