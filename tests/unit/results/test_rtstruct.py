"""Contours in the patient, for those who show no segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import RTStructureSetStorage
from skimage.measure import grid_points_in_poly

from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import file_bytes
from dicom_node.results.outline_proof import prove_rtstruct
from dicom_node.results.rtstruct import build_rtstruct
from dicom_node.spool import Spool
from tests.peers.validators import problems
from tests.unit.results.case import (
    CARD,
    NO_ORGANS,
    Case,
    analysis_of,
    both_lungs,
    boxes,
    build,
    built_of,
    make_case,
    nodules,
)

ONLY = replace(CARD, outputs=(OutputKind.RTSTRUCT,))
ORIENTATIONS: dict[str, dict[str, Any]] = {
    "axial": {},
    "sagittal": {"cosines": (0, 1, 0, 0, 0, -1)},
    "oblique, pixels not square": {"cosines": (0.8, 0, -0.6, 0, 1, 0), "spacing_mm": (2.5, 0.7, 1.3)},
}


def written(analysis: Analysis) -> Dataset:
    structures = build_rtstruct(analysis)
    assert structures is not None
    return dcmread(BytesIO(file_bytes(structures)))


def enclosed(case: Case, structures: Dataset, roi: int) -> NDArray[np.int_]:
    """How often an ROI encloses each voxel, by the slices' own headers and another library than ours."""
    slices = {ds.SOPInstanceUID: (k, ds) for k, ds in enumerate(case.volume.datasets)}
    found = np.zeros(case.volume.array.shape, int)
    [drawn] = [item for item in structures.ROIContourSequence if item.ReferencedROINumber == roi]
    for contour in drawn.ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        k, ds = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        cosines = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        offset = points - np.array(ds.ImagePositionPatient, float)
        assert np.abs(offset @ np.cross(*cosines)).max() < 0.002
        down, across = map(float, ds.PixelSpacing)
        ring = np.stack([offset @ cosines[1] / down, offset @ cosines[0] / across], axis=1)
        inside = grid_points_in_poly(found[k].shape, ring, binarize=False)  # type: ignore[no-untyped-call]
        found[k] += inside == 1
    return found


def riddled(case: Case) -> dict[str, NDArray[np.bool_]]:
    """Both boxes, one of them with holes, an island in a hole, and another island far away."""
    masks = both_lungs(case)
    masks["left lung"][5:9, 14:20, 42:47] = False
    masks["left lung"][6, 16, 44] = True
    masks["left lung"][3:14, 50:53, 2:4] = True
    masks["left lung"][:, 30, 45] = False
    return masks


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_enclose_exactly_what_was_marked_with_holes_and_islands(orientation: str, tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", **ORIENTATIONS[orientation])
    masks = riddled(case)
    analysis = analysis_of(case, masks, NO_ORGANS)
    structures = written(analysis)
    for number, mask in enumerate(masks.values(), start=1):
        assert np.array_equal(enclosed(case, structures, number), mask)
    prove_rtstruct(file_bytes(structures), analysis)


def test_outline_too_long_for_its_element_becomes_several_islands(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", slices=2, rows=180, columns=180)
    masks = boxes(case)
    masks["left lung"][0, 2:178, 2:178] = np.random.default_rng(1).random((176, 176)) < 0.8
    analysis = analysis_of(case, masks, NO_ORGANS)
    data = file_bytes(written(analysis))
    prove_rtstruct(data, analysis)
    structures = dcmread(BytesIO(data))
    contours = structures.ROIContourSequence[0].ContourSequence
    sizes = [len(contour.get_item("ContourData").value) for contour in contours]
    assert 32_000 < max(sizes) < 65_535
    assert np.array_equal(enclosed(case, structures, 1), masks["left lung"])


def test_contours_say_what_they_are_of_whom_and_who_drew_them(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    structures = dcmread(BytesIO(built_of(case, prediction, findings, spool, ONLY).files["rtstruct"]))
    source = case.volume.datasets[0]
    assert structures.SOPClassUID == RTStructureSetStorage
    assert (structures.PatientID, structures.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert structures.ApprovalStatus == "UNAPPROVED"
    assert "not for clinical use" in structures.StructureSetDescription
    assert [item.ROIName for item in structures.StructureSetROISequence] == [s.label for s in findings.present]
    assert {item.ROIGenerationAlgorithm for item in structures.StructureSetROISequence} == {"AUTOMATIC"}
    types = [item.RTROIInterpretedType for item in structures.RTROIObservationsSequence]
    assert types == ["ORGAN", "ORGAN", "", ""]  # whether a lesion is a target, people decide
    left = structures.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (left.CodeValue, left.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("39607008", "Left")
    assert list(structures.ROIContourSequence[0].ROIDisplayColor) == [90, 140, 220]
    [series] = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert len(series.ContourImageSequence) == len(case.volume.datasets)


def test_the_validators_find_nothing_to_say_and_nothing_found_makes_no_contours(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, ONLY)
    assert problems(built.files["rtstruct"], sources=case.sources) == []
    assert list(build(case, boxes(case), spool, ONLY).files) == ["sr"]


def move_a_contour(structures: Dataset) -> None:
    contour = structures.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [float(v) + (1.0 if n % 3 == 0 else 0.0) for n, v in enumerate(contour.ContourData)]


def lift_a_contour(structures: Dataset) -> None:
    contour = structures.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [float(v) + (2.5 if n % 3 == 2 else 0.0) for n, v in enumerate(contour.ContourData)]


def name_another_slice(structures: Dataset) -> None:
    first, second = structures.ROIContourSequence[0].ContourSequence[:2]
    first.ContourImageSequence = second.ContourImageSequence


def drop_a_contour(structures: Dataset) -> None:
    del structures.ROIContourSequence[1].ContourSequence[3]


def repeat_a_contour(structures: Dataset) -> None:
    contours = structures.ROIContourSequence[0].ContourSequence
    contours.append(contours[0])


def exchange_regions(structures: Dataset) -> None:
    first, second = structures.ROIContourSequence[:2]
    first.ReferencedROINumber, second.ReferencedROINumber = 2, 1


def change_the_frame_of_reference(structures: Dataset) -> None:
    structures.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    "lie",
    [
        move_a_contour,
        lift_a_contour,
        name_another_slice,
        drop_a_contour,
        repeat_a_contour,
        exchange_regions,
        change_the_frame_of_reference,
    ],
)
def test_contours_that_lie_are_found_out(lie: Callable[[Dataset], None], tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    analysis = analysis_of(case, both_lungs(case))
    structures = written(analysis)
    prove_rtstruct(file_bytes(structures), analysis)
    lie(structures)
    with pytest.raises(ResultError):
        prove_rtstruct(file_bytes(structures), analysis)
