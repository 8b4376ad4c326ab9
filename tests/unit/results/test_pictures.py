"""Slices in colour with what was found drawn over them, where the slices lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLSLossless, MultiFrameTrueColorSecondaryCaptureImageStorage

from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.drawn import draw_slice
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.key_images import build_key_images
from dicom_node.results.overlay import build_overlay
from dicom_node.results.proof import prove_places
from dicom_node.spool import Spool
from tests.peers.validators import problems
from tests.unit.results.case import (
    CARD,
    EQUIPMENT,
    NO_ORGANS,
    NODULES,
    analysis_of,
    both_lungs,
    boxes,
    build,
    built_of,
    make_case,
    nodules,
)

PICTURES = replace(CARD, outputs=(OutputKind.KEY_IMAGES, OutputKind.OVERLAY), detections=(NODULES,))


def read_back(built: Dataset | None) -> Dataset:
    assert built is not None
    return dcmread(BytesIO(file_bytes(built)))


def test_pictures_show_the_findings_on_the_slices_that_they_name(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", rows=120, columns=128)
    prediction, findings = nodules(case)
    origin = Origin.of(case.job, PICTURES, case.volume, EQUIPMENT)
    analysis = Analysis(origin, case.volume, findings, prediction)
    overlay, key = (read_back(make(analysis)) for make in (build_overlay, build_key_images))
    uids = [str(ds.SOPInstanceUID) for ds in case.volume.datasets]
    assert [item.ReferencedSOPInstanceUID for item in overlay.SourceImageSequence] == uids
    assert [uids.index(item.ReferencedSOPInstanceUID) for item in key.SourceImageSequence] == [5, 8]
    for picture in (overlay, key):
        assert picture.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
        assert picture.file_meta.TransferSyntaxUID == JPEGLSLossless
        assert picture.BurnedInAnnotation == "YES"
        assert picture.FrameOfReferenceUID == case.volume.datasets[0].FrameOfReferenceUID
    pixels = overlay.pixel_array
    assert pixels.shape == (20, 120, 128, 3)
    colored = (pixels == [90, 140, 220]).all(axis=-1)  # the left lung, on its last pixels
    mask = prediction.mask("left lung")
    assert not (colored & ~mask).any()
    assert colored[9, 20, 49]
    assert not colored[9, 20, 45]
    around = (key.pixel_array[1] == [255, 200, 60]).all(axis=-1)  # a nodule, on the first pixels around it
    assert around.any()
    assert not (around & prediction.mask("nodule/1")[8]).any()


def test_the_validators_find_nothing_to_say_and_nothing_marked_makes_no_pictures(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, PICTURES)
    assert problems(*built.files.values(), sources=case.sources) == []
    assert list(build(case, boxes(case), spool, PICTURES).files) == ["sr"]


def test_slice_is_shown_in_its_window_pixel_for_pixel(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", rows=200, columns=200)
    analysis = analysis_of(case, both_lungs(case), NO_ORGANS)
    drawn = draw_slice(analysis, 0, ())[30:170]
    assert np.array_equal(drawn[..., 0], drawn[..., 1])
    expected = np.clip((case.volume.array[0, 30:170] + 160) * (255 / 400), 0, 255).astype(np.uint8)
    assert np.array_equal(drawn[..., 0], expected)


def move_a_frame(picture: Dataset) -> None:
    picture.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


def exchange_sources(picture: Dataset) -> None:
    first, second = picture.SourceImageSequence[:2]
    picture.SourceImageSequence[0], picture.SourceImageSequence[1] = second, first


def drop_a_source(picture: Dataset) -> None:
    del picture.SourceImageSequence[-1]


def mirror(picture: Dataset) -> None:
    picture.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("lie", [move_a_frame, exchange_sources, drop_a_source, mirror])
def test_picture_of_another_place_is_found_out(lie: Callable[[Dataset], None], tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    analysis = analysis_of(case, both_lungs(case))
    picture = read_back(build_overlay(analysis))
    prove_places(file_bytes(picture), analysis)
    lie(picture)
    with pytest.raises(ResultError):
        prove_places(file_bytes(picture), analysis)
