"""The field's own checkers find nothing to say of our objects but their known false alarms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage

from ai.contract import Landmark, Prediction
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.finding import NotRun
from dicom_node.domain.job import Document, Failure
from dicom_node.domain.model import OutputKind
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.ct import Change, small_ct
from tests.peers.validators import problems
from tests.unit.results.case import (
    ALL,
    CARD,
    NO_ORGANS,
    both_lungs,
    boxes,
    build,
    built_of,
    card_with,
    make_case,
    nodules,
    predict,
)
from tests.unit.results.test_header import with_attributes
from tests.unit.results.test_landmarks import CARD as POINTS
from tests.unit.results.test_unanalysed import failed_job, write

SOURCES: dict[str, Change] = {
    "plain": with_attributes(),
    "Latin": with_attributes(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"),
    "Japanese": with_attributes(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"),
    "no order": with_attributes(AccessionNumber=""),
    "lossy": with_attributes(
        LossyImageCompression="01", LossyImageCompressionRatio=15, LossyImageCompressionMethod="ISO_15444_1"
    ),
    "other zone": with_attributes(TimezoneOffsetFromUTC="-0500"),
}
OTHER_BYTES = ("Latin", "Japanese")


@pytest.mark.parametrize("source", SOURCES)
def test_the_validators_find_nothing_to_say(source: str, tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct", change=SOURCES[source])
    built = build(case, both_lungs(case), spool)
    found = problems(built.files["seg"], built.files["sr"], sources=case.sources)
    # dcentvfy compares bytes: the same name in another character set is another name to it
    assert [message for message in found if source not in OTHER_BYTES or "<PatientName>" not in message] == []


@pytest.mark.parametrize("orientation", [(0, 1, 0, 0, 0, -1), (0.8, 0, -0.6, 0, 1, 0)])
def test_the_validators_find_nothing_to_say_of_other_planes(
    orientation: tuple[float, ...], tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct", cosines=orientation, rows=43, columns=51)
    built = build(case, both_lungs(case), spool, NO_ORGANS)
    assert problems(built.files["seg"], built.files["sr"], sources=case.sources) == []


def test_the_validators_find_nothing_to_say_of_a_negative_report(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, boxes(case), spool, card_with(outputs=ALL))
    assert problems(*built.files.values(), sources=case.sources) == []


@pytest.mark.parametrize("not_run", [(), (NotRun("Nodule detection", "slice spacing 8 mm"),)], ids=["whole", "partial"])
def test_the_validators_find_nothing_to_say_of_nodules_and_of_every_kind_of_result(
    not_run: tuple[NotRun, ...], tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    built = built_of(case, prediction, replace(findings, not_run=not_run), spool, card_with(outputs=ALL))
    assert list(dict.fromkeys(OutputKind.of(name) for name in built.files)) == list(ALL)
    assert problems(*built.files.values(), sources=case.sources) == []


def test_the_validators_find_nothing_to_say_of_points(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    named = Prediction((), {}, "cpu", points=(Landmark("a", (4.5, 20, 30)), Landmark("b", (6, 40, 12))))
    card = replace(POINTS, outputs=ALL)
    built = built_of(case, named, findings_from(named, card, case.volume, case.job.id), spool, card)
    assert {"viewer_sr", "sr"} <= set(built.files)
    assert problems(*built.files.values(), sources=case.sources) == []


@pytest.mark.parametrize("source", ["plain", "lossy"])
def test_the_validators_find_nothing_to_say_of_a_segmentation_in_other_encodings(
    source: str, tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct", change=SOURCES[source])
    before = (Document("sr", Comprehensive3DSRStorage, "1.2.3.1", "1.2.3.2"),)
    case = replace(case, job=replace(case.job, predecessors=before))
    masks = both_lungs(case)
    likely = {name: mask * np.uint8(200) for name, mask in masks.items()}
    prediction = replace(predict(masks), probabilities=likely)
    findings = findings_from(prediction, CARD, case.volume, case.job.id)
    built = built_of(case, prediction, findings, spool, encodings=tuple(Encoding))
    made = ("seg-labelmap", "sr-labelmap", "seg-fractional", "sr-fractional")
    assert problems(*(built.files[kind] for kind in made), sources=case.sources) == []


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("source", SOURCES)
def test_the_validators_find_nothing_to_say_of_a_report_without_a_result(
    source: str, failure: Failure, tmp_path: Path, spool: Spool
) -> None:
    sources = small_ct(tmp_path / "ct", slices=8, change=SOURCES[source])
    datasets = [dcmread(path) for path in sources]
    _, data = write(failed_job(datasets, failure, attempt=3), datasets[0], spool)
    found = problems(data, sources=sources)
    assert [message for message in found if source not in OTHER_BYTES or "<PatientName>" not in message] == []


def test_the_validators_find_nothing_to_say_of_a_report_on_what_has_no_geometry(tmp_path: Path, spool: Spool) -> None:
    def two_ways(number: int, ds: Dataset) -> Dataset:
        if number % 2:
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        else:
            del ds.ImagePositionPatient, ds.PixelSpacing
        return ds

    whole = small_ct(tmp_path / "whole", slices=8)
    datasets = [dcmread(path) for path in small_ct(tmp_path / "ct", slices=8, change=two_ways)]
    for ds in datasets:  # dciodvfy has nothing to compare with but a faultless image
        ds.StudyInstanceUID = dcmread(whole[0]).StudyInstanceUID
    _, data = write(failed_job(datasets), datasets[0], spool)
    assert problems(data, sources=whole) == []
