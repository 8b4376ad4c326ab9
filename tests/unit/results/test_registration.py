"""A place of the fixed series leads, by the object alone, to where the model found it in the moving one."""

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

from ai.contract import ModelInvalidOutput, Prediction, Registration
from dicom_node.domain.job import JobInput
from dicom_node.domain.model import OutputKind, RegistrationCard
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.registration_proof import prove_deformation, prove_registration
from dicom_node.results.text import as_text, report_lines
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from dicom_node.work.registration import Start
from tests.unit.results.case import EQUIPMENT, Built, Case, built_of, card_with
from tests.unit.results.test_geometry import GRIDS, read, write

CARD = card_with(
    segments=(),
    outputs=(OutputKind.REGISTRATION, OutputKind.DEFORMATION, OutputKind.SR),
    registration=RegistrationCard("before", "after"),
)
SHIFT_MM, STRETCH, MIDDLE_MM = np.array([5.0, -8.0, 3.0]), np.array([0.06, -0.04, 0.02]), np.array([1.0, 2.0, 3.0])
LANDMARKS_MM = np.array([[30.0, -2, 8], [-32, 4, -6], [33, -9, 17], [-30, 12, -20]])
COARSE: dict[str, Any] = {"spacing_mm": (8.0, 6.0, 6.0), "rows": 27, "columns": 29}
SOME = (
    *("axial", "axial, feet first", "axial, transposed", "coronal", "sagittal"),
    *("oblique about two axes", "far from the origin"),
)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Places = NDArray[np.float64]


def truth(places: Places) -> Places:
    return np.asarray(places + SHIFT_MM + STRETCH * (places - MIDDLE_MM), np.float64)


def field(case: Case, shift_mm: Places, *, flipped: bool = False) -> Registration:
    """On the grid that a network has: along the image's own axes, coarser, in either order of slices."""
    affine = case.volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    shape = tuple((n + 1) // 2 for n in case.volume.array.shape)
    if flipped:
        affine = affine @ np.array([[-1, 0, 0, shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - shift_mm
    return Registration((truth(places) - places).astype(np.float32), affine)


def matrix(shift_mm: Places) -> Registration:
    made = np.eye(4)
    made[:3, :3] += np.diag(STRETCH)
    made[:3, 3] = truth(-shift_mm) + shift_mm
    return Registration(matrix=made)


def pair(folder: Path, spool: Spool, grid: dict[str, Any]) -> tuple[Case, Case, Places]:
    """Two series, in frames of reference of their own: the other one lies elsewhere and is cut in another way."""
    paths, shift_mm = write(folder / "before", COARSE | grid)
    fixed = read(paths, spool)
    moving = read(
        write(folder / "after", COARSE | {"cosines": (0, 1, 0, 0, 0, -1), "shift_mm": (300.0, 20.0, -40.0)})[0], spool
    )
    inputs = tuple(
        JobInput(
            role,
            "",
            case.job.study_instance_uid,
            case.job.series_instance_uid,
            1,
            len(case.job.instances),
            case.job.instances,
        )
        for role, case in (("before", fixed), ("after", moving))
    )
    return replace(fixed, job=replace(fixed.job, inputs=inputs)), moving, shift_mm


def built(fixed: Case, moving: Case, found: Registration, spool: Spool) -> Built:
    start = Start.of(fixed.volume, moving.volume)
    prediction = Prediction((), {}, "cpu", registration=found)
    findings = findings_from(prediction, CARD, fixed.volume, fixed.job.id, start=start)
    return built_of(fixed, start.taken_back(prediction), findings, spool, CARD)


def led(ds: Dataset, places: Places) -> Places:
    """Follow an object as PS3.3 C.20.2.1.1 and C.20.3.1.1 say, place by place."""
    if "RegistrationSequence" in ds:
        item = ds.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
        to_fixed = np.array(item.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
        return np.asarray([np.linalg.solve(to_fixed, [*place, 1])[:3] for place in places])
    item = ds.DeformableRegistrationSequence[1]
    grid = item.DeformableRegistrationGridSequence[0]
    row, column = np.array(grid.ImageOrientationPatient, float).reshape(2, 3)
    wide, high, _ = grid.GridDimensions
    vectors = np.frombuffer(grid.VectorGridData, np.float32).reshape(-1, 3)
    after = np.array(item.PostDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix, float)
    found = []
    for place in places:
        offset = place - np.array(grid.ImagePositionPatient, float)
        i, j, k = np.array([row, column, np.cross(row, column)]) @ offset / np.array(grid.GridResolution)
        a, b, c = np.floor([i, j, k]).astype(int)
        total = np.zeros(3)
        for n in range(8):
            p, q, r = n & 1, n >> 1 & 1, n >> 2
            share = abs(1 - p - (i - a)) * abs(1 - q - (j - b)) * abs(1 - r - (k - c))
            total += share * vectors[(a + p) + wide * ((b + q) + high * (c + r))]
        found.append((after.reshape(4, 4) @ [*(place + total), 1])[:3])
    return np.array(found)


@pytest.mark.parametrize("name", SOME)
def test_whatever_way_the_fixed_series_is_cut_landmarks_end_where_they_are(
    name: str, tmp_path: Path, spool: Spool
) -> None:
    fixed, moving, shift_mm = pair(tmp_path, spool, GRIDS[name])
    start = Start.of(fixed.volume, moving.volume)

    for number, found in enumerate((field(fixed, shift_mm), field(fixed, shift_mm, flipped=True), matrix(shift_mm))):
        made = built(fixed, moving, found, spool)

        kind = "deformation" if number < 2 else "registration"
        assert list(made.files) == [kind, "sr"]
        ds = dcmread(BytesIO(made.files[kind]))
        expected = (
            truth(LANDMARKS_MM) + shift_mm - start.shift_mm
        )  # where the model was shown the moving series, less that
        np.testing.assert_allclose(led(ds, LANDMARKS_MM + shift_mm), expected, atol=0.01)


def test_the_object_says_which_series_it_leads_from_and_to_and_the_report_how_far(tmp_path: Path, spool: Spool) -> None:
    fixed, moving, shift_mm = pair(tmp_path, spool, GRIDS["oblique about two axes"])
    made = built(fixed, moving, field(fixed, shift_mm), spool)

    ds = dcmread(BytesIO(made.files["deformation"]))
    first, second = ds.DeformableRegistrationSequence
    assert (ds.Modality, ds.SOPClassUID.name) == ("REG", "Deformable Spatial Registration Storage")
    assert ds.FrameOfReferenceUID == first.SourceFrameOfReferenceUID == fixed.volume.datasets[0].FrameOfReferenceUID
    assert second.SourceFrameOfReferenceUID == moving.volume.datasets[0].FrameOfReferenceUID
    for item, case in ((first, fixed), (second, moving)):
        named = [reference.ReferencedSOPInstanceUID for reference in item.ReferencedImageSequence]
        assert named == [header.SOPInstanceUID for header in case.volume.datasets]
    assert [item.SeriesInstanceUID for item in ds.ReferencedSeriesSequence] == [
        case.job.series_instance_uid for case in (fixed, moving)
    ]
    assert "not for clinical use" in ds.ContributingEquipmentSequence[0].ContributionDescription
    said = made.summaries["sr"]["registration"]
    assert (said["fixed"], said["moving"], said["folded_percent"]) == ("before", "after", 0.0)
    assert 9 < said["mean_mm"] < 11 < said["largest_mm"] < 16  # 9.9 mm of shift, and a little stretch of 70 mm
    text = as_text(report_lines(made.files["sr"]))
    assert "Mean displacement by registration" in text
    assert "Registration of after on before: what is in the body moved" in text
    assert "different frames of reference" in text
    assert ds.SOPInstanceUID in str(made.sr)


def of_analysis(fixed: Case, moving: Case, found: Registration) -> Analysis:
    start = Start.of(fixed.volume, moving.volume)
    prediction = Prediction((), {}, "cpu", registration=found)
    findings = findings_from(prediction, CARD, fixed.volume, fixed.job.id, start=start)
    origin = Origin.of(fixed.job, CARD, fixed.volume, EQUIPMENT)
    return Analysis(origin, fixed.volume, findings, start.taken_back(prediction))


def _item(ds: Dataset) -> Any:
    return ds.DeformableRegistrationSequence[1]


def _grid(ds: Dataset) -> Any:
    return _item(ds).DeformableRegistrationGridSequence[0]


def _mirrored(ds: Dataset) -> None:
    vectors = np.frombuffer(_grid(ds).VectorGridData, np.float32).reshape(-1, 3) * np.array([-1, 1, 1], np.float32)
    _grid(ds).VectorGridData = vectors.tobytes()


BROKEN: dict[str, tuple[Callable[[Dataset], Any], str]] = {
    "left for right": (_mirrored, "mm away from where"),
    "no way back": (lambda ds: _item(ds).pop("PostDeformationMatrixRegistrationSequence"), "mm away from where"),
    "half a grid further": (lambda ds: setattr(_grid(ds), "ImagePositionPatient", [0, 0, 0]), "mm away from where"),
    "the other way": (lambda ds: ds.DeformableRegistrationSequence.reverse(), "another frame of reference"),
    "another image": (lambda ds: _item(ds).ReferencedImageSequence.pop(), "other images than"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_object_that_leads_elsewhere_is_never_sent(fault: str, tmp_path: Path, spool: Spool) -> None:
    from dicom_node.results.registration import build_deformation

    fixed, moving, shift_mm = pair(tmp_path, spool, GRIDS["coronal"])
    analysis = of_analysis(fixed, moving, field(fixed, shift_mm))
    ds = build_deformation(analysis)
    assert ds is not None
    prove_deformation(file_bytes(ds), analysis)
    spoil, why = BROKEN[fault]
    spoil(ds)

    with pytest.raises(ResultError, match=why):
        prove_deformation(file_bytes(ds), analysis)


def test_a_matrix_the_wrong_way_round_is_never_sent(tmp_path: Path, spool: Spool) -> None:
    from dicom_node.results.registration import build_registration

    fixed, moving, shift_mm = pair(tmp_path, spool, GRIDS["sagittal"])
    analysis = of_analysis(fixed, moving, matrix(shift_mm))
    ds = build_registration(analysis)
    assert ds is not None
    prove_registration(file_bytes(ds), analysis)
    item = ds.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    assert item.FrameOfReferenceTransformationMatrixType == "RIGID_SCALE"
    right = np.array(item.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
    item.FrameOfReferenceTransformationMatrix = [f"{number:.8g}" for number in np.linalg.inv(right).ravel()]

    with pytest.raises(ResultError, match="mm away from where"):
        prove_registration(file_bytes(ds), analysis)


def test_a_field_on_slanted_axes_is_refused(tmp_path: Path, spool: Spool) -> None:
    fixed, moving, shift_mm = pair(tmp_path, spool, GRIDS["axial"])
    found = field(fixed, shift_mm)
    assert found.affine is not None
    slanted = found.affine.copy()
    slanted[1, 0] += 1.0

    with pytest.raises(ResultError, match="not perpendicular"):
        built(fixed, moving, replace(found, affine=slanted), spool)


def test_a_field_that_folds_the_body_is_refused_and_one_that_folds_little_is_told_of(
    tmp_path: Path, spool: Spool
) -> None:
    fixed, moving, shift_mm = pair(tmp_path, spool, GRIDS["axial"])
    found = field(fixed, shift_mm)
    assert found.vectors is not None
    vectors = found.vectors.copy()
    centre = tuple(n // 2 for n in vectors.shape[:3])
    vectors[centre] += (0, 0, 40)

    text = as_text(report_lines(built(fixed, moving, replace(found, vectors=vectors), spool).files["sr"]))
    assert "The field folds 0." in text

    vectors[::2, ..., 2] += 40
    with pytest.raises(ModelInvalidOutput, match="% of the body inside out; its card allows 1 %"):
        built(fixed, moving, replace(found, vectors=vectors), spool)


def test_a_mirror_image_is_no_registration(tmp_path: Path, spool: Spool) -> None:
    fixed, moving, _ = pair(tmp_path, spool, GRIDS["axial"])

    with pytest.raises(ModelInvalidOutput, match="mirror image"):
        built(fixed, moving, Registration(matrix=LPS @ np.diag([1.0, -1, 1, 1])), spool)
    with pytest.raises(ModelInvalidOutput, match="does not say how"):
        findings_from(Prediction((), {}, "cpu"), CARD, fixed.volume, fixed.job.id)
