"""Slices with findings as pictures of their own."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.domain.model import OutputKind
from dicom_node.results import captures
from dicom_node.results.analysis import Analysis
from dicom_node.results.captures import shown_slices
from dicom_node.results.drawn import draw_slice, key_slices
from dicom_node.results.header import Origin
from dicom_node.spool import Spool
from tests.peers.validators import problems
from tests.unit.results.case import CARD, EQUIPMENT, NODULES, both_lungs, boxes, build, built_of, make_case, nodules

CAPTURES = replace(CARD, outputs=(OutputKind.CAPTURES,), detections=(NODULES,))


def test_each_slice_with_a_finding_is_an_object_of_one_series(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, CAPTURES)
    uids = [str(ds.SOPInstanceUID) for ds in case.volume.datasets]
    images = [dcmread(BytesIO(data)) for data in built.files.values()]
    shown = [uids.index(image.SourceImageSequence[0].ReferencedSOPInstanceUID) for image in images]
    assert shown == [5, 6, 8, 9, 10, 11]
    assert list(built.files) == ["captures", *(f"captures-{n}" for n in range(2, 7))]
    assert {image.SOPClassUID for image in images} == {SecondaryCaptureImageStorage}
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert [image.InstanceNumber for image in images] == [k + 1 for k in shown]
    analysis = Analysis(Origin.of(case.job, CAPTURES, case.volume, EQUIPMENT), case.volume, findings, prediction)
    for k, image in zip(shown, images, strict=True):
        assert image.BurnedInAnnotation == "YES"
        assert np.array_equal(image.pixel_array, draw_slice(analysis, k, findings.present))
    assert problems(*built.files.values(), sources=case.sources) == []


def test_of_many_slices_some_are_shown_and_the_key_slices_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    analysis = Analysis(Origin.of(case.job, CAPTURES, case.volume, EQUIPMENT), case.volume, findings, prediction)
    monkeypatch.setattr(captures, "MOST_CAPTURES", 4)
    assert len(shown_slices(analysis)) == 4
    assert {*key_slices(analysis)} <= {*shown_slices(analysis)} <= {5, 6, 8, 9, 10, 11}


def test_organs_are_shown_where_nothing_else_is_looked_for_and_nothing_marked_makes_none(
    tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct")
    organs = replace(CAPTURES, detections=())
    assert len(build(case, both_lungs(case), spool, organs).files) == 14
    assert list(build(case, boxes(case), spool, CAPTURES).files) == ["sr"]
