"""A report as text says what the object says, in words, and names nobody unless asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.domain.job import Failure
from dicom_node.errors import SpoolError
from dicom_node.results.text import as_text, report_lines
from dicom_node.spool import Spool
from tests.ct import small_ct
from tests.unit.results.case import ALL, Built, boxes, build, built_of, card_with, make_case, nodules
from tests.unit.results.test_unanalysed import failed_job, write


@pytest.fixture
def built(tmp_path: Path, spool: Spool) -> Built:
    case = make_case(tmp_path / "ct")
    return built_of(case, *nodules(case), spool, card_with(outputs=ALL))


def test_a_nodule_reads_as_a_person_would_write_it(built: Built) -> None:
    said = as_text(report_lines(built.files["sr"]))
    assert said.startswith(
        "Imaging Measurement Report: complete, preliminary, unverified\n"
        "  Series: AI SR: Lung segmentation (research only)\n"
        "  Algorithm: lung_ct 0.1.0+sha256.cdcdcdcdcdcd\n"
    )
    nodule = said[said.index("    Nodule 1: ") : said.index("    Nodule 2: ")]
    assert nodule.splitlines()[:9] == [
        "    Nodule 1: Nodule, lung (left)",
        "      Long axis: 8.4 mm",
        "      Short axis: 6.1 mm",
        "      Volume: 810 mm3",
        "      Mean attenuation coefficient: 31.2 HU",
        "      Minimum attenuation coefficient: -40.0 HU",
        "      Certainty of finding: 93.0 %",
        "      Attenuation type: Part-solid",
        "      Lung-RADS 2022 category: 4A",
    ]
    assert "    Left lung: lung (left)\n" in said
    assert said.count("0.1.0+sha256") == 1


def test_the_report_for_viewers_reads_alike(built: Built) -> None:
    said = as_text(report_lines(built.files["viewer_sr"]))
    assert "    Nodule 1: Nodule, lung (left)\n      Long axis: 8.4 mm\n      Short axis: 6.1 mm\n" in said
    assert "Cornerstone" not in said


def test_nothing_found_is_said(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    said = as_text(report_lines(build(case, boxes(case), spool).files["sr"]))
    assert "CAD Processing and Findings Summary: All algorithms succeeded; without findings\n" in said
    assert "Comment: Nothing was found in 20 images: no left lung, no right lung.\n" in said
    assert "Image Library: 20 images\n" in said


def test_what_was_not_analysed_is_said(tmp_path: Path, spool: Spool) -> None:
    datasets = [dcmread(path) for path in small_ct(tmp_path / "ct", slices=4)]
    _, data = write(failed_job(datasets, Failure.FAILED, attempt=3), datasets[0], spool)
    said = as_text(report_lines(data))
    assert said.startswith(
        "Imaging Measurement Report: partial, preliminary, unverified\n  Series: NOT ANALYSED (failed)"
    )
    assert "CAD Processing and Findings Summary: No algorithms succeeded; without findings\n" in said


@pytest.mark.parametrize("kind", ["sr", "viewer_sr"])
def test_it_names_nobody_and_has_no_uids_unless_asked(kind: str, built: Built) -> None:
    data = built.files[kind]
    said = as_text(report_lines(data))
    for private in ("SYNTHETIC", "SYN-001", "19600101", "ACC0001"):
        assert private not in said
    assert not re.search(r"\d+\.\d+\.\d+\.\d+\.\d+", said)
    asked = as_text(report_lines(data, patient=True))
    assert "  Patient's Name: SYNTHETIC^CHEST\n  Patient ID: SYN-001\n" in asked
    assert "  Accession Number: ACC0001\n" in asked


def test_what_is_no_report_is_refused(built: Built) -> None:
    with pytest.raises(SpoolError, match="cannot be read"):
        report_lines(b"no DICOM file")
