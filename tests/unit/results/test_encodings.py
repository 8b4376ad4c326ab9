"""Every encoding of a segmentation holds the same voxels, says the same of them, and has a report that points at it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian, RLELossless

from dicom_node.domain.delivery import kinds_for
from dicom_node.domain.encoding import Encoding, refuse_encodings
from dicom_node.domain.job import Document
from dicom_node.domain.model import OutputKind
from dicom_node.results import BUILDERS
from dicom_node.results.analysis import Analysis
from dicom_node.results.frames import rle_pixels
from dicom_node.results.header import complete, copy_body_part, file_bytes, instance_attributes
from dicom_node.results.seg import ENCODERS, describe
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.unit.results.case import (
    CARD,
    LEFT_BOX,
    NO_ORGANS,
    RIGHT_BOX,
    Case,
    Masks,
    analysis_of,
    both_lungs,
    boxes,
    built_of,
    make_case,
    predict,
)
from tests.unit.results.test_seg import ORIENTATIONS

ALL = tuple(Encoding)
MADE_BY_CHANCE = {"DimensionOrganizationUID", "ContributionDateTime", "InstanceCreationDate", "InstanceCreationTime"}


def likely(masks: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.uint8]]:
    """Probabilities that are above a half where the masks are, and fade around them."""
    values = {}
    for number, (name, mask) in enumerate(masks.items()):
        values[name] = np.where(mask, 200 + number, 0).astype(np.uint8)
        values[name][:, 5:9, 5:9] = 30
    return values


def analysis_in(folder: Path, **options: Any) -> tuple[Case, Analysis]:
    case = make_case(folder, **options)
    masks = both_lungs(case)
    analysis = analysis_of(case, masks, NO_ORGANS)
    return case, replace(analysis, marks=Masks(masks, probabilities=likely(masks)))


@pytest.mark.parametrize("encoding", ALL)
@pytest.mark.parametrize("orientation", ["axial", "oblique", "not square, frames that end inside a byte"])
def test_what_we_write_is_what_highdicom_alone_writes(encoding: Encoding, orientation: str, tmp_path: Path) -> None:
    _, analysis = analysis_in(tmp_path / "ct", **ORIENTATIONS[orientation])
    made = ENCODERS[encoding](analysis)
    assert made is not None
    ours = dcmread(BytesIO(file_bytes(made)))
    theirs = dcmread(BytesIO(file_bytes(written_by_highdicom(analysis, encoding))))
    assert ours.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
    assert np.array_equal(ours.pixel_array, theirs.pixel_array)
    assert said(ours) == said(theirs)


def said(ds: Dataset) -> dict[str, Any]:
    """All but pixels and what is drawn by lot; that slices are regular is said in other words."""
    left = {element.keyword: element for element in ds if element.keyword not in ("PixelData", *MADE_BY_CHANCE)}
    left.pop("DimensionOrganizationType", None)
    left["SharedFunctionalGroupsSequence"].value[0].PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in left[keyword].value:
            del item.DimensionOrganizationUID
    return left


def written_by_highdicom(analysis: Analysis, encoding: Encoding) -> Dataset:
    origin, segments = analysis.origin, analysis.findings.present
    pixels: NDArray[Any] = analysis.numbered().labels
    if encoding is Encoding.FRACTIONAL:
        found = [analysis.marks.probability(each.output) for each in segments]
        pixels = np.stack([array / 255 for array in found if array is not None], axis=-1)
    ours = ENCODERS[encoding](analysis)
    assert ours is not None
    part = "seg" if encoding is Encoding.BINARY else f"seg-{encoding.value}"
    seg = hd.seg.Segmentation(
        source_images=origin.slices,
        pixel_array=pixels,
        segmentation_type=encoding.name,
        segment_descriptions=[describe(origin, segment) for segment in segments],
        transfer_syntax_uid=ExplicitVRLittleEndian if encoding is Encoding.BINARY else RLELossless,
        content_label=ours.head.ContentLabel,
        content_description=ours.head.ContentDescription,
        **instance_attributes(origin, part, 1, ours.head.SeriesDescription),
    )
    seg.ContentCreatorName, seg.DerivationDescription = "", ours.head.DerivationDescription
    copy_body_part(seg, origin)
    complete(seg, origin)
    return seg


def test_a_report_points_at_the_segmentation_of_its_own_encoding(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    masks = both_lungs(case)
    prediction = replace(predict(masks), probabilities=likely(masks))
    findings = findings_from(prediction, CARD, case.volume, case.job.id)
    built = built_of(case, prediction, findings, spool, encodings=ALL)
    assert list(built.files) == ["seg", "seg-labelmap", "seg-fractional", "sr", "sr-labelmap", "sr-fractional"]
    read = {kind: dcmread(BytesIO(data)) for kind, data in built.files.items()}
    assert len({ds.SOPInstanceUID for ds in read.values()} | {ds.SeriesInstanceUID for ds in read.values()}) == 12
    assert read["seg-labelmap"].SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    for seg, sr in (("seg", "sr"), ("seg-labelmap", "sr-labelmap"), ("seg-fractional", "sr-fractional")):
        named = {e.value for e in read[sr].iterall() if e.keyword == "ReferencedSOPInstanceUID"}
        others = {read[kind].SOPInstanceUID for kind in ("seg", "seg-labelmap", "seg-fractional")}
        assert named & others == {read[seg].SOPInstanceUID}
        classes = {e.value for e in read[sr].iterall() if e.keyword == "ReferencedSOPClassUID"}
        assert read[seg].SOPClassUID in classes


def test_each_form_of_a_report_names_the_one_whose_place_it_takes(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    before = tuple(
        Document(kind, Comprehensive3DSRStorage, f"1.2.{n}", f"1.3.{n}") for n, kind in enumerate(("sr", "x"))
    )
    case = replace(case, job=replace(case.job, predecessors=before))
    prediction = predict(both_lungs(case))
    findings = findings_from(prediction, CARD, case.volume, case.job.id)
    built = built_of(case, prediction, findings, spool, encodings=[Encoding.LABELMAP])
    for kind in ("sr", "sr-labelmap"):  # nobody was sent a report on a label map: the plain one came before it
        [study] = dcmread(BytesIO(built.files[kind])).PredecessorDocumentsSequence
        [series] = study.ReferencedSeriesSequence
        [document] = series.ReferencedSOPSequence
        assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (case.job.study_instance_uid, "1.3.0")
        assert document.ReferencedSOPClassUID == Comprehensive3DSRStorage
        assert document.ReferencedSOPInstanceUID == "1.2.0"
    assert built.summaries["sr"]["replaces"] == {"sr": "1.2.0", "x": "1.2.1"}


def test_what_cannot_be_encoded_so_is_left_out_with_its_reason(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    masks = boxes(case, left_lung=LEFT_BOX, right_lung=np.s_[2:16, 12:40, 7:42])
    prediction = predict(masks)
    findings = findings_from(prediction, NO_ORGANS, case.volume, case.job.id)
    built = built_of(case, prediction, findings, spool, NO_ORGANS, encodings=ALL)
    assert list(built.files) == ["seg", "sr"]
    assert built.summaries["seg"]["not_as"] == {
        "labelmap": "'Left lung' and 'Right lung' overlap",
        "fractional": "the model gives no probabilities of 'Left lung', 'Right lung'",
    }


def test_nothing_found_is_encoded_in_no_way(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction = predict(boxes(case))
    findings = findings_from(prediction, CARD, case.volume, case.job.id)
    assert list(built_of(case, prediction, findings, spool, encodings=ALL).files) == ["sr"]


def test_more_than_255_segments_take_two_bytes(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", slices=3)
    analysis = analysis_of(case, boxes(case, right_lung=RIGHT_BOX))
    [one] = analysis.findings.present
    numbers = range(1, 301)
    places = {f"organ {n}": np.s_[1, n // 60 : n // 60 + 1, n % 60 : n % 60 + 1] for n in numbers}
    masks = {name: np.zeros(case.volume.array.shape, np.bool_) for name in places}
    for name, place in places.items():
        masks[name][place] = True
    segments = [replace(one, output=f"organ {n}", label=f"organ {n}", number=n, voxels=1) for n in numbers]
    many = replace(analysis, findings=replace(analysis.findings, segments=tuple(segments)), marks=Masks(masks))
    made = ENCODERS[Encoding.LABELMAP](many)
    assert made is not None
    seg = dcmread(BytesIO(file_bytes(made)))
    assert seg.BitsAllocated == 16
    assert [seg.pixel_array[n // 60, n % 60] for n in numbers] == list(numbers)


def test_noise_in_rle_reads_back_the_same() -> None:
    random = np.random.default_rng(3)
    for dtype in (np.uint8, np.uint16):
        planes = random.integers(0, 400 if dtype is np.uint16 else 3, (2, 37, 131)).astype(dtype)
        ds = Dataset()
        ds.Rows, ds.Columns, ds.NumberOfFrames, ds.SamplesPerPixel = 37, 131, 2, 1
        ds.BitsAllocated = ds.BitsStored = 8 * planes.itemsize
        ds.HighBit, ds.PixelRepresentation, ds.PhotometricInterpretation = ds.BitsStored - 1, 0, "MONOCHROME2"
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = RLELossless
        ds.PixelData = rle_pixels(planes)[12:-8]  # without the element's own head and the delimiter
        ds["PixelData"].is_undefined_length = True
        assert np.array_equal(ds.pixel_array, planes)


FORMS = (OutputKind.SEG, OutputKind.SEG_LABELMAP, OutputKind.PM, OutputKind.SR, OutputKind.SR_LABELMAP)


@pytest.mark.parametrize(
    ("made", "wanted", "seg", "chosen"),
    [
        (FORMS, (), Encoding.BINARY, ["seg", "pm", "sr"]),
        (FORMS, (), Encoding.LABELMAP, ["seg-labelmap", "pm", "sr-labelmap"]),
        (FORMS, (), Encoding.FRACTIONAL, ["seg", "pm", "sr"]),
        (FORMS, (OutputKind.SR,), Encoding.LABELMAP, ["sr-labelmap"]),
        ((OutputKind.SR,), (), Encoding.LABELMAP, ["sr"]),
        ((OutputKind.SR,), (OutputKind.SEG, OutputKind.PM), Encoding.BINARY, ["sr"]),
        (FORMS, (OutputKind.SC,), Encoding.LABELMAP, ["sr-labelmap"]),
    ],
)
def test_a_destination_gets_one_segmentation_and_the_report_on_it(
    made: tuple[OutputKind, ...], wanted: tuple[OutputKind, ...], seg: Encoding, chosen: list[str]
) -> None:
    assert [kind.value for kind in kinds_for(made, wanted, seg)] == chosen


def test_a_card_asks_for_no_encoding_and_no_rejection() -> None:
    assert {kind.value for kind in OutputKind} - {kind.value for kind in BUILDERS} == {
        "seg-labelmap",
        "seg-fractional",
        "sr-labelmap",
        "sr-fractional",
        "rejection",
    }
    with pytest.raises(ValueError, match="reject_superseded"):
        refuse_encodings([OutputKind.REJECTION])
