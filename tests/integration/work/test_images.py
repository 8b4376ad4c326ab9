"""Single images through an attempt: left is left, up is up, white is white, a millimetre is a millimetre."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless, generate_uid

from ai.bundle import Bundle
from ai.contract import Images, Prediction
from ai.process import ModelProcess
from dicom_node.admin.pages import job as page
from dicom_node.domain.eligibility import Accepts
from dicom_node.domain.finding import Code
from dicom_node.domain.job import Failed, Job, Succeeded
from dicom_node.domain.model import (
    ClassificationCard,
    DetectionCard,
    ImageValues,
    ModelCard,
    OutputKind,
    PointCard,
    SegmentCard,
)
from dicom_node.domain.study import Slice, examine
from dicom_node.picture import overlay_png, read_overlay
from dicom_node.results import Equipment
from dicom_node.results.contours import rings
from dicom_node.results.single import gsps
from dicom_node.results.text import as_text, report_lines
from dicom_node.single_image import Spacing, load_image
from dicom_node.spool import Spool
from dicom_node.work.attempt import WorkNode, run_attempt
from tests.peers.validators import problems
from tests.single import BAR, BLOCK, COLUMNS, ROWS, marks, single_image
from tests.stored import spool_files
from tests.unit.ai.bundles import ARGMAX, SIDES, WHICH, write_bundle
from tests.unit.ai.test_landmarks import BY_POINT, MIDDLES
from tests.unit.results.test_pdf import text_of

ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = Code("52988006", "SCT", "Lesion")
SIDE = Code("SIDE", "99PHANTOM", "Brighter side")
ANSWERS = {name: Code(name.upper(), "99PHANTOM", name.capitalize()) for name in ("left", "right")}
TWO_D = {"num_channels": 1, "spatial_shape": [64, 64]}
COLOUR = {"num_channels": 3, "spatial_shape": [64, 64], "channel_def": {"0": "R", "1": "G", "2": "B"}}
EVERY = (OutputKind.SEG, OutputKind.CAPTURES, OutputKind.SR)
ALL = (
    OutputKind.SEG,
    OutputKind.SC,
    OutputKind.GSPS,
    OutputKind.KEY_IMAGES,
    OutputKind.OVERLAY,
    OutputKind.CAPTURES,
    OutputKind.PDF,
    OutputKind.KOS,
    OutputKind.SR,
)
BASE = ModelCard(
    name="flat",
    version="1.2.3",
    title="Bars and blocks",
    manufacturer="dicom-node",
    summary="Marks what is bright.",
    training="Trained on nothing.",
    bundle=Path("flat"),
    digest="ab" * 32,
    weights_digest="cd" * 32,
    timeout_s=60,
    accepts=Accepts(("CR", "DX", "MG", "US", "OP")),
    segments=(),
    outputs=EVERY,
)
SEGMENTS = replace(
    BASE,
    segments=(
        SegmentCard("left side", "Block", ABNORMAL, LESION),
        SegmentCard("right side", "Bar", ABNORMAL, LESION),
    ),
)
BOXES = replace(BASE, detections=(DetectionCard("thing", "Thing", "Thing detection", ABNORMAL, LESION),))
POINTS = replace(
    BASE, points=(PointCard("block", "Block", ABNORMAL, LESION), PointCard("bar", "Bar", ABNORMAL, LESION))
)
CLASSES = replace(BASE, classifications=(ClassificationCard("pred", SIDE, ANSWERS),))
# Boxes in the order column, row, column, row; MONAI's box of the pixels 3 to 5 is 3 to 6.
DRAWS = (
    SIDES
    + """
class Boxes:
    def __call__(self, image, network):
        corners = []
        for part in network(image)[0][1:]:
            bright = part.nonzero()
            corners.append(torch.cat([bright.min(dim=0).values, bright.max(dim=0).values + 1]).float())
        label = torch.tensor([0, 0])
        return [{"box": torch.stack(corners), "label": label, "label_scores": torch.tensor([0.75, 0.9])}]
"""
)


class InThisProcess:
    """A bundle asked without a process of its own, which has tests of its own."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def predict(self, images: Images, *, timeout_s: float, cancelled: Callable[[], bool]) -> Prediction:
        return self._bundle.predict(images)


def bundle(
    folder: Path, image: dict[str, Any], pred: dict[str, Any], code: str = SIDES, name: str = "Sides", **config: Any
) -> Bundle:
    after = [] if pred.get("format") != "segmentation" else [ARGMAX]
    write_bundle(folder, network=code, class_name=name, preprocessing=[], postprocessing=after, threshold=1000.0)
    for changed, said in (
        ("metadata.json", {"network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}),
        ("inference.json", config),
    ):
        file = folder / "configs" / changed
        file.write_text(json.dumps(json.loads(file.read_text()) | said))
    return Bundle.load(folder)


SIDES_OF = {"format": "segmentation", "channel_def": {"0": "background", "1": "left side", "2": "right side"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    made = tmp_path_factory.mktemp("flat")
    boxes = {"type": "object", "format": "dict", "channel_def": {"0": "thing"}}
    which = {"type": "probabilities", "format": "classes", "channel_def": {"0": "left", "1": "right"}}
    named = {"format": "points", "channel_def": {"0": "block", "1": "bar"}}
    inferer = {"_target_": "flat_boxes.nets.Boxes"}
    red = SIDES.replace("image >", "image[:, :1] >").replace("zeros_like(image)", "zeros_like(bright)")
    return {
        "segments": bundle(made / "flat_sides", TWO_D, SIDES_OF),
        "red": bundle(made / "flat_red", COLOUR, SIDES_OF, red.replace("self.threshold)", "200)")),
        "boxes": bundle(made / "flat_boxes", TWO_D, boxes, DRAWS, inferer=inferer),
        "points": bundle(made / "flat_points", TWO_D, named, MIDDLES.replace("FORM", BY_POINT), "Middles"),
        "classes": bundle(made / "flat_which", TWO_D, which, WHICH, "Which"),
        "volumes": bundle(made / "flat_deep", {"spatial_shape": [64, 64, 64]}, SIDES_OF),
    }


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def attempt(
    spool: Spool,
    files: list[Path],
    card: ModelCard,
    model: Bundle,
    if_silent: frozenset[OutputKind] = frozenset({OutputKind.SR}),
) -> Any:
    instances = spool_files(spool, files)
    verdict = examine([Slice(one.sop_instance_uid, one.header) for one in instances])
    assert verdict.refusal is None
    first = dcmread(files[0], stop_before_pixels=True)
    job = Job(
        id="11111111-2222-3333-4444-555555555555",
        series_id="66666666-7777-8888-9999-000000000000",
        study_instance_uid=str(first.StudyInstanceUID),
        series_instance_uid=str(first.SeriesInstanceUID),
        series_revision=1,
        model=card.name,
        model_version=card.version,
        rule="flat",
        destinations=(),
        priority=10,
        attempt=1,
        max_attempts=1,
        created_at=datetime(2026, 1, 3, tzinfo=UTC),
        instances=tuple(instances),
    )
    process = cast(ModelProcess, InThisProcess(model))
    node = WorkNode({card.name: card}, spool, Equipment("n", "1", "1"), lambda card: process, lambda: False)
    return run_attempt(job, replace(node, if_silent=if_silent))


def made_of(outcome: Any, spool: Spool) -> dict[str, Dataset]:
    assert isinstance(outcome, Succeeded), outcome
    return {result.name: dcmread(BytesIO(spool.path(result.path).read_bytes())) for result in outcome.results}


def segment(seg: Dataset, label: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    numbers = {item.SegmentLabel: item.SegmentNumber for item in seg.SegmentSequence}
    frames = [item.SegmentIdentificationSequence[0] for item in seg.PerFrameFunctionalGroupsSequence]
    (index,) = [n for n, item in enumerate(frames) if item.ReferencedSegmentNumber == numbers[label]]
    return np.asarray(pixels[index] > 0)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("CR", {"white_is_low": True, "PixelSpacing": [0.2, 0.1]}),
        ("CR", {"white_is_low": True, "PixelPaddingValue": 0, "WindowCenter": 1000, "WindowWidth": 200}),
        ("DX", {}),
        ("DX", {"white_is_low": True, "Rows": 90, "Columns": 84}),
        ("MG", {}),
    ],
)
def test_what_is_outlined_lies_on_the_pixels_that_are_bright(
    kind: str, changes: dict[str, Any], models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    file = single_image(tmp_path / "in", kind, **changes)
    source = dcmread(file)

    made = made_of(attempt(spool, [file], SEGMENTS, models["segments"]), spool)

    seg = made["seg"]
    rows, columns = int(source.Rows), int(source.Columns)
    assert (seg.Rows, seg.Columns, seg.NumberOfFrames) == (rows, columns, 2)
    for label, place in (("Bar", BAR), ("Block", BLOCK)):
        expected = np.zeros((rows, columns), np.bool_)
        expected[place] = True
        assert np.array_equal(segment(seg, label), expected), label
    reference = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "FrameOfReferenceUID" not in seg


@pytest.mark.parametrize(("kind", "white_is_low"), [("MG", False), ("CR", True), ("DX", False), ("US", False)])
def test_what_is_made_of_a_single_image_is_valid(
    kind: str, white_is_low: bool, models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    body = {"DX": "CHEST", "US": "THYROID"}
    said: dict[str, Any] = {"BodyPartExamined": body[kind]} if kind in body else {}
    file = single_image(tmp_path / "in", kind, white_is_low=white_is_low, **said)
    card = replace(SEGMENTS, outputs=(*ALL, OutputKind.PM, OutputKind.RTSTRUCT, OutputKind.VIEWER_SR))

    made = made_of(attempt(spool, [file], card, models["red" if kind == "US" else "segments"]), spool)

    assert list(made) == [kind.value for kind in ALL if kind is not OutputKind.GSPS or len(made) == len(ALL)]
    assert ("gsps" in made) == (kind != "US"), "a greyscale presentation state shows grey images"
    assert complaints(*(spool_bytes(spool, name) for name in made), sources=[file]) == []


def test_outlines_and_boxes_are_drawn_over_the_image_as_it_wants_to_be_shown(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    same: dict[str, Any] = {"study": generate_uid(), "series": generate_uid()}
    files = [
        single_image(tmp_path, "CR", number=1, **same, white_is_low=True, WindowCenter=[2000, 1], WindowWidth=[900, 1]),
        single_image(tmp_path, "MG", number=2, **same, Rows=90, Columns=84, RescaleSlope=2, RescaleIntercept=-10),
    ]

    outlines = made_of(attempt(spool, files, replace(SEGMENTS, outputs=(OutputKind.GSPS,)), models["segments"]), spool)
    first, second = outlines["gsps"], outlines["gsps-2"]
    (box,) = [
        ds
        for name, ds in made_of(
            attempt(spool, files[:1], replace(BOXES, outputs=(OutputKind.GSPS,)), models["boxes"]), spool
        ).items()
        if name == "gsps"
    ]

    for state, file in ((first, files[0]), (second, files[1])):
        source = dcmread(file)
        (series,) = state.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        assert [item.ReferencedSOPInstanceUID for item in series.ReferencedImageSequence] == [source.SOPInstanceUID]
        assert drawn_in(state, "BLOCK") == (9, 40, 16, 52)
        assert drawn_in(state, "BAR") == (55, 7, 79, 19)
        (area,) = state.DisplayedAreaSelectionSequence
        assert list(area.DisplayedAreaBottomRightHandCorner) == [source.Columns, source.Rows]
    assert (first.PresentationLUTShape, second.PresentationLUTShape) == ("INVERSE", "IDENTITY")
    assert [voi.WindowCenter for voi in first.SoftcopyVOILUTSequence] == [2000]
    assert first.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [1, 1]
    assert list(second.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing) == [0.09, 0.063]
    assert (second.RescaleSlope, second.RescaleIntercept) == (2, -10)
    (voi,) = second.SoftcopyVOILUTSequence
    low, high = 2 * 300 - 10, 2 * 3000 - 10  # ground and bar, after the Modality LUT
    assert (voi.WindowCenter, voi.WindowWidth) == ((low + high) / 2, high - low)
    assert drawn_in(box, "THING 1") == (55, 7, 79, 19)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID


def drawn_in(state: Dataset, name: str) -> tuple[float, ...]:
    """Left, top, right and bottom of what is drawn on the layer of a finding."""
    points = [
        np.array(graphic.GraphicData).reshape(-1, 2)
        for annotation in state.GraphicAnnotationSequence
        if annotation.GraphicLayer.endswith(name)
        for graphic in annotation.GraphicObjectSequence
    ]
    every = np.concatenate(points)
    return (*every.min(axis=0), *every.max(axis=0))


def test_an_outline_that_encloses_something_else_is_not_let_out(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gsps, "rings", lambda mask: rings(np.roll(mask, 1, axis=1)))
    card = replace(SEGMENTS, outputs=(OutputKind.GSPS,))

    outcome = attempt(spool, [single_image(tmp_path, "DX")], card, models["segments"])

    assert isinstance(outcome, Failed)
    assert "the outline 1 BLOCK of Image 1 (U PA) does not enclose what was marked" in str(outcome.error)
    assert list((spool.root / "quarantine").rglob("gsps.dcm"))


def test_key_images_overlay_and_selection_tell_which_of_several_images_to_look_at(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    same: dict[str, Any] = {"study": generate_uid(), "series": generate_uid()}
    files = [single_image(tmp_path, "DX", number=n, **same, Rows=60 + n) for n in (1, 2)]
    dark = dcmread(files[0])
    dark.PixelData = np.full((dark.Rows, dark.Columns), 300, np.uint16).tobytes()
    dark.save_as(files[0])
    uids = [dcmread(file).SOPInstanceUID for file in files]
    kinds = (OutputKind.KEY_IMAGES, OutputKind.OVERLAY, OutputKind.KOS, OutputKind.PDF)

    made = made_of(attempt(spool, files, replace(SEGMENTS, outputs=kinds), models["segments"]), spool)
    silent = made_of(attempt(spool, files[:1], replace(SEGMENTS, outputs=kinds), models["segments"]), spool)

    assert list(made) == ["key_images", "overlay", "overlay-2", "pdf", "kos", "sr"]
    assert [made[name].SourceImageSequence[0].ReferencedSOPInstanceUID for name in list(made)[:3]] == [
        uids[1],
        uids[0],
        uids[1],
    ]
    shown = np.asarray(made["key_images"].pixel_array)
    assert shown.shape == (62, COLUMNS, 3)
    assert {tuple(pixel) for pixel in shown[BLOCK].reshape(-1, 3)} >= {SEGMENTS.segments[0].color_rgb}
    (named,) = [item for item in made["kos"].ContentSequence if item.ValueType == "IMAGE"]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uids[1]
    assert list(silent) == ["pdf", "sr"]
    said = text_of(spool_bytes(spool, "pdf"))
    assert "Nothing was found in 1 images: no block, no bar." in said


def test_the_printed_report_says_what_is_in_which_image_and_which_was_not_analysed(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    same: dict[str, Any] = {"study": generate_uid(), "series": generate_uid()}
    files = [
        single_image(tmp_path, "DX", number=1, **same, ViewPosition="LL"),
        single_image(tmp_path, "DX", number=2, **same),
    ]
    card = replace(SEGMENTS, accepts=replace(SEGMENTS.accepts, views=("PA", "AP")), outputs=(OutputKind.PDF,))
    classes = replace(CLASSES, outputs=(OutputKind.PDF,))

    made_of(attempt(spool, files, card, models["segments"]), spool)
    said = text_of(spool_bytes(spool, "pdf"))
    made_of(attempt(spool, files[1:], classes, models["classes"]), spool)
    told = text_of(spool_bytes(spool, "pdf"))

    for expected in (
        "Doe Jane",
        "Image 1 (U LL) not analysed: the image shows LL, made for PA or AP.",
        "Found: Block (image 2 (U PA)), Bar (image 2 (U PA)).",
        "Area 36.0 mm2",
        "Millimetres are those of the detector",
        "RESEARCH ONLY - NOT FOR DIAGNOSTIC USE",
    ):
        assert expected in said
    assert "Brighter side Right" in told


def test_whoever_takes_no_report_is_told_of_nothing_found_in_another_form(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    file = single_image(tmp_path, "DX")
    dark = dcmread(file)
    dark.PixelData = np.full((dark.Rows, dark.Columns), 300, np.uint16).tobytes()
    dark.save_as(file)
    card = replace(SEGMENTS, outputs=(OutputKind.SEG, OutputKind.SR))

    made = made_of(attempt(spool, [file], card, models["segments"], frozenset({OutputKind.PDF})), spool)

    assert list(made) == ["pdf", "sr"]


def spool_bytes(spool: Spool, name: str) -> bytes:
    return spool.path(f"results/11111111-2222-3333-4444-555555555555/{name}.dcm").read_bytes()


@pytest.mark.parametrize(
    ("kind", "changes", "pixel_mm2", "where"),
    [
        ("MG", {}, 0.09 * 0.063, Spacing.PATIENT),
        ("DX", {}, 0.5 * 0.25, Spacing.DETECTOR),
        ("DX", {"PixelSpacing": [0.5, 0.25]}, 0.5 * 0.25, Spacing.DETECTOR),  # PS3.3 10.7.1.3: nothing was corrected
        ("CR", {"PixelSpacing": [0.0, 0.0]}, None, Spacing.UNKNOWN),
    ],
)
def test_an_area_is_measured_where_the_image_says_how_large_a_pixel_is(
    kind: str,
    changes: dict[str, Any],
    pixel_mm2: float | None,
    where: Spacing,
    models: Mapping[str, Bundle],
    spool: Spool,
    tmp_path: Path,
) -> None:
    outcome = attempt(spool, [single_image(tmp_path, kind, **changes)], SEGMENTS, models["segments"])

    summary = outcome.results[0].summary["segments"]
    sr = as_text(report_lines(spool_bytes(spool, "sr")))
    assert made_of(outcome, spool)
    pixels = {"Bar": 12 * 24, "Block": 12 * 7}
    for said in summary:
        label = said["label"].split(",")[0]
        assert said["voxels"] == pixels[label]
        assert said["area_mm2"] == (pixel_mm2 and pytest.approx(pixels[label] * pixel_mm2, abs=0.01))
    assert ("those of the detector" in sr) == (where is Spacing.DETECTOR)
    assert ("does not say how large its pixels are" in sr) == (where is Spacing.UNKNOWN)


def test_boxes_are_drawn_in_the_image_from_edge_to_edge(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    file = single_image(tmp_path / "in", "DX", white_is_low=True)

    made = made_of(attempt(spool, [file], BOXES, models["boxes"]), spool)

    assert "seg" not in made, "a box is drawn, not outlined"
    report: Any = hd.sr.srread(BytesIO(spool_bytes(spool, "sr")))
    drawn = {}
    for group in report.content.get_planar_roi_measurement_groups():
        assert (
            group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            == dcmread(file).SOPInstanceUID
        )
        points = group.roi.value
        drawn[group.tracking_identifier] = (*points.min(axis=0), *points.max(axis=0))
    assert drawn == {"Thing 1": (55, 7, 79, 19), "Thing 2": (9, 40, 16, 52)}, "surest first: column, row"
    assert complaints(spool_bytes(spool, "sr"), sources=[file]) == []


def test_a_point_is_drawn_in_the_middle_of_the_thing(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    file = single_image(tmp_path / "in", "DX", white_is_low=True)

    outcome = attempt(spool, [file], POINTS, models["points"])

    assert sorted(made_of(outcome, spool)) == ["captures", "sr"]
    report: Any = hd.sr.srread(BytesIO(spool_bytes(spool, "sr")))
    drawn = {}
    for group in report.content.get_planar_roi_measurement_groups():
        image = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == dcmread(file).SOPInstanceUID
        drawn[group.tracking_identifier] = (group.roi.graphic_type.value, *group.roi.value[0])
    assert drawn == {"Block": ("POINT", 12.5, 46), "Bar": ("POINT", 67, 13)}, "column, row"
    places = {said["label"]: said["where"] for said in outcome.results[0].summary["points"]}
    assert places == {"Block, image 1 (U PA)": "column 12.5, row 46.0", "Bar, image 1 (U PA)": "column 67.0, row 13.0"}
    assert complaints(spool_bytes(spool, "sr"), sources=[file]) == []


def test_each_image_of_a_mammogram_has_an_answer_of_its_own(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    study, series = generate_uid(), generate_uid()
    views = [("R", "CC", 61, 83), ("L", "MLO", 75, 90)]
    files = [
        single_image(tmp_path / "in", "MG", number=n, study=study, series=series, Rows=rows, Columns=columns)
        for n, (_, _, rows, columns) in enumerate(views, start=1)
    ]
    for file, (side, view, _, _) in zip(files, views, strict=True):
        ds = dcmread(file)
        ds.ImageLaterality, ds.ViewPosition = side, view
        ds.save_as(file)
    flipped = dcmread(files[1])
    flipped.PixelData = np.ascontiguousarray(flipped.pixel_array[:, ::-1]).tobytes()
    flipped.save_as(files[1])

    outcome = attempt(spool, files, CLASSES, models["classes"])

    made = made_of(outcome, spool)
    assert sorted(made) == ["captures", "captures-2", "sr"]
    assert [(q["name"], q["value"]) for q in outcome.results[0].summary["qualities"]] == [
        ("Image 1 (R CC): Brighter side", "Right"),
        ("Image 2 (L MLO): Brighter side", "Left"),
    ]
    report: Any = hd.sr.srread(BytesIO(spool_bytes(spool, "sr")))
    groups = report.content.get_image_measurement_groups()
    answers = {}
    for group in groups:
        for source in group.source_images:
            (said,) = group.get_qualitative_evaluations(SIDE_CODE)
            answers[source.referenced_sop_instance_uid] = said.value.meaning
    assert answers == {
        str(dcmread(file).SOPInstanceUID): said for file, said in zip(files, ("Right", "Left"), strict=True)
    }
    assert (made["captures-2"].Rows, made["captures-2"].Columns) == (75, 90)
    assert made["captures-2"].SourceImageSequence[0].ReferencedSOPInstanceUID == dcmread(files[1]).SOPInstanceUID
    assert complaints(spool_bytes(spool, "sr"), spool_bytes(spool, "captures-2"), sources=files) == []


SIDE_CODE = hd.sr.CodedConcept(SIDE.value, SIDE.scheme, SIDE.meaning)


def test_the_page_of_a_job_shows_each_image_with_what_is_on_it(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    same: dict[str, Any] = {"study": generate_uid(), "series": generate_uid()}
    files = [
        single_image(tmp_path, "DX", number=1, **same),
        single_image(tmp_path, "DX", number=2, **same, Rows=90, Columns=84),
    ]
    card = replace(SEGMENTS, segments=SEGMENTS.segments[:1])

    outcome = attempt(spool, files, card, models["segments"])

    slices = [SimpleNamespace(sop_instance_uid=str(dcmread(file).SOPInstanceUID)) for file in files]
    results = {result.name: {"summary": result.summary, "path": result.path} for result in outcome.results}
    overlays = [read_overlay(spool.path(result.path)) for result in outcome.results if result.kind is OutputKind.SEG]
    assert page._marks(slices, overlays) == [0, 1]
    assert [(one["label"], one["at"]) for one in page._segments(results, overlays, slices)] == [
        ("Block, image 1 (U PA)", 0),
        ("Block, image 2 (U PA)", 1),
    ]
    assert [
        Image.open(BytesIO(overlay_png(one, each.sop_instance_uid))).size
        for one, each in zip(overlays, slices, strict=True)
    ] == [(83, 61), (84, 90)]


@pytest.mark.parametrize("kind", ["US", "OP"])
def test_a_colour_image_is_given_as_red_green_and_blue(
    kind: str, models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    file = single_image(tmp_path / "in", kind)

    seg = made_of(attempt(spool, [file], SEGMENTS, models["red"]), spool)["seg"]

    assert np.array_equal(segment(seg, "Bar") | segment(seg, "Block"), marks())
    assert complaints(spool_bytes(spool, "seg"), spool_bytes(spool, "captures"), sources=[file]) == []


def test_a_jpeg_in_brightness_and_differences_of_colour_is_red_green_and_blue(spool: Spool, tmp_path: Path) -> None:
    file = single_image(tmp_path, "US", Rows=64, Columns=96)
    ds = dcmread(file)
    rgb, encoded = ds.pixel_array, BytesIO()
    Image.fromarray(rgb).save(encoded, "JPEG", quality=95)
    ds.PixelData = encapsulate([encoded.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.PhotometricInterpretation, ds.file_meta.TransferSyntaxUID = "YBR_FULL_422", JPEGBaseline8Bit
    ds.save_as(file, enforce_file_format=True)
    (instance,) = spool_files(spool, [file])

    planes = load_image(spool, instance).planes

    assert list(planes) == ["R", "G", "B"]
    for n, plane in enumerate(planes.values()):
        assert np.abs(plane - rgb[..., n]).mean() < 5


def test_another_attempt_writes_the_same_bytes(models: Mapping[str, Bundle], spool: Spool, tmp_path: Path) -> None:
    files = [single_image(tmp_path, "MG")]

    first = attempt(spool, files, SEGMENTS, models["segments"])
    second = attempt(spool, files, SEGMENTS, models["segments"])

    assert [one.kind for one in first.results] == list(EVERY)
    assert [one.sha256 for one in first.results] == [one.sha256 for one in second.results]


def test_views_that_a_model_was_not_made_for_are_not_run_and_the_report_says_so(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    study, series = generate_uid(), generate_uid()
    same: dict[str, Any] = {"study": study, "series": series}
    files = [
        single_image(tmp_path, "DX", number=1, **same, ViewPosition="LL"),
        single_image(tmp_path, "DX", number=2, **same),
    ]
    card = replace(SEGMENTS, accepts=replace(SEGMENTS.accepts, views=("PA", "AP")))

    outcome = attempt(spool, files, card, models["segments"])
    none = attempt(spool, files[:1], card, models["segments"])

    made = made_of(outcome, spool)
    assert [
        seg.PerFrameFunctionalGroupsSequence[0]
        .DerivationImageSequence[0]
        .SourceImageSequence[0]
        .ReferencedSOPInstanceUID
        for name, seg in made.items()
        if name.startswith("seg")
    ] == [dcmread(files[1]).SOPInstanceUID]
    assert made["sr"].CompletionFlag == "PARTIAL"
    assert outcome.results[0].summary["not_run"] == [
        {"what": "Image 1 (U LL)", "how": "not analysed", "why": "the image shows LL, made for PA or AP"}
    ]
    assert isinstance(none, Failed)
    assert str(none.error) == "flat was not run: the image shows LL, made for PA or AP."


def test_a_model_of_volumes_says_that_it_is_none_of_single_images(
    models: Mapping[str, Bundle], spool: Spool, tmp_path: Path
) -> None:
    outcome = attempt(spool, [single_image(tmp_path, "CR")], SEGMENTS, models["volumes"])

    assert isinstance(outcome, Failed)
    assert str(outcome.error) == "The model works on volumes; this is a single image."


@pytest.mark.parametrize("white_is_low", [False, True])
def test_values_are_those_of_the_modality_or_those_of_a_display(
    white_is_low: bool, spool: Spool, tmp_path: Path
) -> None:
    window: dict[str, Any] = {"WindowCenter": 4095 - 1150 if white_is_low else 1150, "WindowWidth": 1700}
    file = single_image(tmp_path, "CR", white_is_low=white_is_low, **window)
    ds = dcmread(file)
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    ds.save_as(file)
    (instance,) = spool_files(spool, [file])

    plain = load_image(spool, instance).planes[""]
    shown = load_image(spool, instance, ImageValues.DISPLAY).planes[""]

    assert [float(plane[0, 0]) for plane in (plain, shown)] == [300, 0]
    assert [float(plane[45, 12]) for plane in (plain, shown)] == [2200, 255]
    assert plain.shape == (ROWS, COLUMNS)
    assert 0 < float(load_image(spool, instance, ImageValues.DISPLAY).planes[""][BAR].mean()) <= 255


def complaints(*objects: bytes, sources: list[Path]) -> list[str]:
    """What the checkers say, but for dcmqi: its converter makes volumes, and asks a single image where it lies."""
    return [said for said in problems(*objects, sources=sources) if "segimage2itkimage ended" not in said]
