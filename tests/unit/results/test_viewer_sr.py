"""Axes and outlines are drawn where they were measured, on the image that they belong to, as viewers take them over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from skimage.draw import polygon2mask

from dicom_node.domain.finding import NotRun
from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.viewer_sr import TRACKED_BY, build_viewer_sr
from dicom_node.results.viewer_sr_proof import prove_viewer_sr
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.unit.results.case import (
    CARD,
    EQUIPMENT,
    NODULES,
    Built,
    both_lungs,
    build,
    built_of,
    card_with,
    make_case,
    nodules,
)
from tests.unit.results.test_geometry import GRIDS, places, predict, read, truth, write

SIZED = replace(NODULES, measurements=("long_axis", "short_axis"))
OUTPUTS = (OutputKind.SEG, OutputKind.VIEWER_SR, OutputKind.SR)
AXIAL = [name for name in GRIDS if name.startswith(("axial", "anisotropic", "pixels", "far", "positions"))]


def groups(sr: Dataset, template: str) -> list[Dataset]:
    (measurements,) = (item for item in sr.ContentSequence if concept(item) == "Imaging Measurements")
    return [g for g in measurements.ContentSequence if g.ContentTemplateSequence[0].TemplateIdentifier == template]


def concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def values(group: Dataset) -> dict[str, str]:
    return {concept(item): str(item.get("TextValue") or item.get("UID")) for item in group.ContentSequence}


def drawn(item: Dataset, sources: Mapping[str, Dataset]) -> tuple[Dataset, NDArray[np.float64]]:
    """The image that something is drawn on, and its points there: column, row; 0.5 in the middle of the first pixel."""
    to = item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    return sources[to], np.array(item.GraphicData, float).reshape(-1, 2)


@pytest.fixture
def built(tmp_path: Path, spool: Spool) -> Built:
    case = make_case(tmp_path / "ct")
    return built_of(case, *nodules(case), spool, card_with(outputs=OUTPUTS))


@pytest.mark.parametrize("name", AXIAL)
def test_whatever_way_axial_slices_lie_axes_and_outline_are_on_the_nodule(
    name: str, tmp_path: Path, spool: Spool
) -> None:
    paths, shift_mm = write(tmp_path / "ct", GRIDS[name])
    case = read(paths, spool)
    card = card_with(outputs=(OutputKind.VIEWER_SR,), detections=(SIZED,))
    prediction = predict(case, shift_mm)
    sr = built_of(case, prediction, findings_from(prediction, card, case.volume, case.job.id), spool, card).viewer_sr
    sources: dict[str, Dataset] = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, paths)}
    found = list(groups(sr, "1501"))
    assert len(found) == 2
    for group in found:
        for number in (item for item in group.ContentSequence if item.ValueType == "NUM"):
            image, points = drawn(number.ContentSequence[0], sources)
            ends = in_phantom(image, points, shift_mm)
            assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(
                float(number.MeasuredValueSequence[0].NumericValue), abs=0.06
            )
            middle = (ends[0] + ends[1]) / 2
            assert any((((middle - c) / r) ** 2).sum() <= 1 for c, r in ELLIPSOIDS), "it goes through the nodule"
    for group in groups(sr, "1410"):
        (region,) = (item for item in group.ContentSequence if item.ValueType == "SCOORD")
        image, points = drawn(region, sources)
        inside = polygon2mask((image.Rows, image.Columns), points[:, ::-1] - 0.5)  # type: ignore[no-untyped-call]
        nodule = truth(image, shift_mm)["Nodule"] & (np.sign(places(image, shift_mm)[..., 0]) == side(group))
        assert np.array_equal(inside, nodule)


ELLIPSOIDS = [(np.array((33, -9, 17)), np.array((9, 7, 8))), (np.array((-30, 12, -20)), np.array((6, 8, 7)))]


def in_phantom(image: Dataset, points: NDArray[np.float64], shift_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    cosines = np.array(image.ImageOrientationPatient, float)
    down, across = (float(mm) for mm in image.PixelSpacing)
    column, row = (points - 0.5).T
    place = column[:, None] * across * cosines[:3] + row[:, None] * down * cosines[3:]
    return np.asarray(place + np.array(image.ImagePositionPatient, float) - shift_mm)


def side(group: Dataset) -> int:
    (site,) = (item for item in group.ContentSequence if concept(item) == "Finding Site")
    return 1 if site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left" else -1


@pytest.mark.parametrize("name", ["coronal", "sagittal", "oblique about two axes"])
def test_what_was_not_measured_on_an_image_is_not_drawn_on_one(name: str, tmp_path: Path, spool: Spool) -> None:
    paths, shift_mm = write(tmp_path / "ct", GRIDS[name])
    case = read(paths, spool)
    card = card_with(outputs=(OutputKind.VIEWER_SR, OutputKind.SR), detections=(SIZED,))
    prediction = predict(case, shift_mm)
    built = built_of(case, prediction, findings_from(prediction, card, case.volume, case.job.id), spool, card)
    assert list(built.files) == ["sr"]


def test_a_finding_has_the_name_of_the_segmentation_and_that_of_the_tool(built: Built) -> None:
    axes, outlines = groups(built.viewer_sr, "1501"), groups(built.viewer_sr, "1410")
    assert [values(group)["Tracking Identifier"] for group in axes] == [
        f"{TRACKED_BY}:Nodule 1",
        f"{TRACKED_BY}:Nodule 2",
    ]
    tracked = [item.TrackingUID for item in built.seg.SegmentSequence][2:]
    assert [values(group)["Tracking Unique Identifier"] for group in (*axes, *outlines)] == tracked * 2
    assert [values(group)["Comment"] for group in axes] == [
        "Nodule 1 (AI, certainty 93%)",
        "Nodule 2 (AI, certainty 41%)",
    ]


def test_the_first_number_of_a_group_has_coordinates_and_the_names_that_viewers_match(built: Built) -> None:
    for group in groups(built.viewer_sr, "1501"):
        long, short = (item for item in group.ContentSequence if item.ValueType == "NUM")
        assert (concept(long), concept(short)) == ("Long Axis", "Short Axis")
        assert [item.ContentSequence[0].ValueType for item in (long, short)] == ["SCOORD", "SCOORD"]
        assert all(len(item.ContentSequence[0].GraphicData) == 4 for item in (long, short))


def test_highdicom_reads_regions_and_images_back(built: Built) -> None:
    report = hd.sr.ComprehensiveSR.from_dataset(built.viewer_sr)
    assert isinstance(report.content, hd.sr.MeasurementReport)
    (first, second) = report.content.get_planar_roi_measurement_groups()
    assert first.reference_type == hd.sr.CodedConcept("111030", "DCM", "Image Region")
    assert first.roi is not None
    assert second.roi is not None
    images = {uid for _, _, uid, _ in report.get_evidence()}
    assert images == {
        first.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
        second.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
    }


def test_it_says_that_it_is_partial_and_for_viewers(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    partial = replace(findings, not_run=(NotRun("Emphysema", "contrast medium"),))
    sr = built_of(case, prediction, partial, spool, card_with(outputs=OUTPUTS)).viewer_sr
    assert (sr.CompletionFlag, sr.CompletionFlagDescription) == ("PARTIAL", "Emphysema not run: contrast medium")
    assert sr.SeriesDescription == "AI SR for viewers: Lung segmentation (research only)"
    assert sr.SeriesNumber % 100 == 9


def test_organs_have_no_axes_so_there_is_nothing_to_draw(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    assert list(build(case, both_lungs(case), spool, card_with(outputs=OUTPUTS)).files) == ["seg", "sr"]


def numbers(sr: Dataset) -> Iterator[Dataset]:
    for group in groups(sr, "1501"):
        yield from (item for item in group.ContentSequence if item.ValueType == "NUM")


def shift_an_axis(sr: Dataset) -> None:
    scoord = next(numbers(sr)).ContentSequence[0]
    scoord.GraphicData = [x + 1 for x in scoord.GraphicData]


def give_another_length(sr: Dataset) -> None:
    next(numbers(sr)).MeasuredValueSequence[0].NumericValue = "9.1"


def draw_on_another_slice(sr: Dataset) -> None:
    first, *_, last = numbers(sr)
    first.ContentSequence[0].ContentSequence = last.ContentSequence[0].ContentSequence


def draw_on_another_series(sr: Dataset) -> None:
    scoord = next(numbers(sr)).ContentSequence[0]
    scoord.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def shift_the_outline(sr: Dataset) -> None:
    (region,) = (item for item in groups(sr, "1410")[0].ContentSequence if item.ValueType == "SCOORD")
    region.GraphicData = [x + 1 for x in region.GraphicData]


def take_the_other_nodule(sr: Dataset) -> None:
    first, second = groups(sr, "1410")
    first.ContentSequence, second.ContentSequence = list(second.ContentSequence), list(first.ContentSequence)
    uids = [next(item for item in group.ContentSequence if item.ValueType == "UIDREF") for group in (first, second)]
    uids[0].UID, uids[1].UID = uids[1].UID, uids[0].UID


LIES: tuple[Callable[[Dataset], Any], ...] = (
    shift_an_axis,
    give_another_length,
    draw_on_another_slice,
    draw_on_another_series,
    shift_the_outline,
    take_the_other_nodule,
)


@pytest.mark.parametrize("lie", LIES)
def test_a_drawing_that_lies_is_found_out(lie: Callable[[Dataset], Any], tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    analysis = Analysis(Origin.of(case.job, CARD, case.volume, EQUIPMENT), case.volume, findings, prediction)
    sr = build_viewer_sr(analysis)
    assert sr is not None
    prove_viewer_sr(file_bytes(sr), analysis)
    lie(sr)
    with pytest.raises(ResultError, match="report for viewers"):
        prove_viewer_sr(file_bytes(sr), analysis)
