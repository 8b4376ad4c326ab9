"""A point that a model names is in the reports where the patient has it, whatever way the patient was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from ai.contract import Landmark, ModelInvalidOutput, Prediction
from dicom_node.domain.finding import Code
from dicom_node.domain.model import OutputKind, PointCard
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.landmark_proof import prove_landmarks
from dicom_node.results.text import as_text, report_lines
from dicom_node.results.viewer_sr_proof import prove_viewer_sr
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.unit.results.case import EQUIPMENT, LEFT, ORGAN, RIGHT, Built, Case, built_of, card_with, make_case
from tests.unit.results.test_geometry import GRIDS, NODULE, hu_at, places, read, write

VALVE = Code("91134007", "SCT", "Mitral valve")
CARD = card_with(
    segments=(),
    outputs=(OutputKind.VIEWER_SR, OutputKind.SR),
    points=(PointCard("a", "Left point", ORGAN, VALVE, LEFT), PointCard("b", "Right point", ORGAN, VALVE, RIGHT)),
)
PHANTOM_MM = {"a": np.array([33.0, -9, 17]), "b": np.array([-30.0, 12, -20])}  # in a nodule of either side
SOME = ("axial, feet first", "axial, transposed", "coronal", "oblique about two axes", "far from the origin")


def named(case: Case, at_mm: dict[str, np.ndarray[Any, Any]]) -> Prediction:
    """Name points by the affine of the volume, as a model does: it knows nothing of headers."""
    inverse = np.linalg.inv(case.volume.affine)
    at = {name: inverse[:3, :3] @ place + inverse[:3, 3] for name, place in at_mm.items()}
    points = tuple(Landmark(name, (float(k), float(j), float(i))) for name, (k, j, i) in at.items())
    return Prediction((), {}, "cpu", points=points)


def built(case: Case, prediction: Prediction, spool: Spool, card: Any = CARD) -> Built:
    return built_of(case, prediction, findings_from(prediction, card, case.volume, case.job.id), spool, card)


def drawn(sr: Dataset, kind: str) -> dict[str, Dataset]:
    """What is drawn of each finding, by its tracking identifier."""
    (measured,) = (item for item in sr.ContentSequence if said(item) == "Imaging Measurements")
    found = {}
    for group in measured.ContentSequence:
        name = next(item.TextValue for item in group.ContentSequence if said(item) == "Tracking Identifier")
        for item in group.ContentSequence:
            if item.ValueType == kind:
                found[str(name)] = item
    return found


def said(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


@pytest.mark.parametrize("name", SOME)
def test_whatever_way_slices_lie_a_point_is_where_the_patient_has_it(name: str, tmp_path: Path, spool: Spool) -> None:
    paths, shift_mm = write(tmp_path / "ct", GRIDS[name])
    case = read(paths, spool)
    made = built(case, named(case, {point: place + shift_mm for point, place in PHANTOM_MM.items()}), spool)

    sources = {ds.SOPInstanceUID: ds for ds in map(dcmread, paths)}
    in_patient, on_image = drawn(made.sr, "SCOORD3D"), drawn(made.viewer_sr, "SCOORD")
    for label, place_mm in zip(("Left point", "Right point"), PHANTOM_MM.values(), strict=True):
        item = in_patient[label]
        assert (item.GraphicType, item.ReferencedFrameOfReferenceUID) == (
            "POINT",
            case.volume.datasets[0].FrameOfReferenceUID,
        )
        assert np.array(item.GraphicData) - shift_mm == pytest.approx(place_mm, abs=1e-3)
        image = sources[on_image[label].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
        column, row = (round(number - 0.5) for number in on_image[label].GraphicData)
        pixel_mm = places(image, shift_mm)[row, column]
        assert np.linalg.norm(pixel_mm - place_mm) < 3.0  # half of a voxel, corner to corner
        assert hu_at(pixel_mm[None])[0] == NODULE
    assert made.summaries["sr"]["points"][0]["where"].startswith("L ")


MOVED: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "moved": (lambda item: setattr(item, "GraphicData", [item.GraphicData[0] + 3, *item.GraphicData[1:]]), "elsewhere"),
    "another frame": (lambda item: setattr(item, "ReferencedFrameOfReferenceUID", "1.2.3"), "another frame"),
    "no point": (lambda item: setattr(item, "GraphicType", "MULTIPOINT"), "no point of the model"),
    "left out": (lambda item: setattr(item, "ValueType", "TEXT"), "lacks 1 of the points"),
}


@pytest.mark.parametrize("how", MOVED)
def test_a_report_whose_point_is_not_where_the_model_named_it_is_not_sent(
    how: str, tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct")
    prediction = named(case, {"a": middle(case), "b": middle(case) + 5})
    sr = built(case, prediction, spool).sr
    findings = findings_from(prediction, CARD, case.volume, case.job.id)
    analysis = Analysis(Origin.of(case.job, CARD, case.volume, EQUIPMENT), case.volume, findings, prediction)
    prove_landmarks(file_bytes(sr), analysis)
    change, why = MOVED[how]

    change(drawn(sr, "SCOORD3D")["Left point"])

    with pytest.raises(ResultError, match=why):
        prove_landmarks(file_bytes(sr), analysis)
    outside = replace(findings.points[0], at=(0.0, -3.0, 5.0))
    with pytest.raises(ResultError):
        prove_landmarks(file_bytes(sr), replace(analysis, findings=replace(findings, points=(outside,))))


def test_a_point_moved_on_its_image_is_not_sent(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction = named(case, {"a": middle(case), "b": middle(case) + 5})
    sr = built(case, prediction, spool).viewer_sr
    findings = findings_from(prediction, CARD, case.volume, case.job.id)
    analysis = Analysis(Origin.of(case.job, CARD, case.volume, EQUIPMENT), case.volume, findings, prediction)
    prove_viewer_sr(file_bytes(sr), analysis)
    item = drawn(sr, "SCOORD")["Right point"]
    item.GraphicData = [item.GraphicData[0], item.GraphicData[1] + 2]

    with pytest.raises(ResultError, match="Right point elsewhere"):
        prove_viewer_sr(file_bytes(sr), analysis)


def middle(case: Case) -> np.ndarray[Any, Any]:
    at = (np.array(case.volume.array.shape) - 1) / 2
    return np.asarray(case.volume.affine[:3, :3] @ at + case.volume.affine[:3, 3])


def test_what_lies_in_no_image_is_left_out_and_said(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    card = replace(CARD, points=(CARD.points[0], replace(CARD.points[1], corner_mm=5.0)))
    corner = Landmark("b", (3.0, 1.0, 2.0))  # 1.5 mm a pixel
    prediction = Prediction((), {}, "cpu", points=(Landmark("a", (3.0, -1.0, 2.0)), corner))

    made = built(case, prediction, spool, card)

    assert made.findings.points == ()
    assert list(made.files) == ["sr"]
    text = as_text(report_lines(made.files["sr"]))
    assert "Left point not reported: the model puts it outside of the images." in text
    assert "Right point not reported: the model puts it at a corner of the image" in text
    assert "Nothing was found in 20 images: no left point, no right point." in text
    assert built(case, replace(prediction, points=(prediction.points[0], corner)), spool, CARD).findings.points != ()


def test_a_point_on_each_slice_says_which(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    on_each = tuple(Landmark(name, (float(k), 9.5, 20.25)) for k in range(4) for name in "ab")

    made = built(case, Prediction((), {}, "cpu", points=on_each), spool)

    assert [point.label for point in made.findings.points][:2] == ["Left point, image 1", "Left point, image 2"]
    assert len({point.tracking_uid for point in made.findings.points}) == 8
    assert "Left point, image 3: mitral valve (left)" in as_text(report_lines(made.files["sr"]))


def test_a_model_that_leaves_a_point_out_gave_no_usable_answer(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    with pytest.raises(ModelInvalidOutput, match="no point named 'b'"):
        findings_from(named(case, {"a": middle(case)}), CARD, case.volume, case.job.id)


def test_points_are_marked_on_the_pictures(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct", rows=128, columns=192)
    kinds = (OutputKind.SC, OutputKind.KEY_IMAGES, OutputKind.CAPTURES, OutputKind.PDF, OutputKind.KOS)
    points = (Landmark("a", (4.2, 60.0, 30.0)), Landmark("b", (4.0, 80.0, 12.0)))

    made = built(case, Prediction((), {}, "cpu", points=points), spool, replace(CARD, outputs=kinds))

    assert list(made.files) == [*("sc", "key_images", "captures", "pdf", "kos", "sr")]
    (capture,) = (dcmread(BytesIO(made.files[name])) for name in made.files if name.startswith("captures"))
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == case.volume.datasets[4].SOPInstanceUID
    picture = np.asarray(Image.fromarray(capture.pixel_array))
    for row, column in ((60, 30), (80, 12)):
        for down, across in ((0, 4), (0, -4), (4, 0), (-4, 0)):
            assert tuple(picture[row + down, column + across]) == CARD.points[0].color_rgb
        assert tuple(picture[row, column]) != CARD.points[0].color_rgb, "its own pixel stays to be seen"
