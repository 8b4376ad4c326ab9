"""An image that a model answered with comes back value for value where it belongs, and says what its values are."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, ParametricMapStorage

from ai.contract import ModelInvalidOutput, Prediction
from dicom_node.domain import codes
from dicom_node.domain.finding import Code
from dicom_node.domain.model import MapCard, OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.grey import build_grey, prove_grey
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.pm import build_pm
from dicom_node.results.proof import prove_pm
from dicom_node.results.text import as_text, report_lines
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from dicom_node.work.maps import in_units
from tests.peers.validators import problems
from tests.unit.results.case import EQUIPMENT, Built, Case, built_of, card_with, make_case, predict
from tests.unit.results.test_geometry import GRIDS, hu_at, places, read, write
from tests.unit.results.test_registration import COARSE

SMOOTHED = Code("113087", "DCM", "Smoothing")
DENOISED = MapCard("denoised", "Denoised CT", codes.ATTENUATION, codes.HOUNSFIELD_UNIT, SMOOTHED)
DOUBT = MapCard(
    "doubt", "Doubt", Code("DOUBT", "99PHANTOM", "Doubt"), Code("1", "UCUM", "no units"), may_be_constant=True
)
OUTPUTS = (OutputKind.PM, OutputKind.GREY, OutputKind.SR)
CARD = card_with(segments=(), outputs=OUTPUTS, maps=(DENOISED,))


def plus(case: Case, more: float = 100.25) -> Prediction:
    """What a model gave that adds a number: one that is no whole one."""
    return Prediction((), {}, "cpu", images={"denoised": case.volume.array + np.float32(more)})


def made(case: Case, spool: Spool, prediction: Prediction | None = None, **card: object) -> Built:
    on_card = replace(CARD, **card) if card else CARD  # type: ignore[arg-type]
    told = in_units(prediction or plus(case), on_card)
    return built_of(case, told, findings_from(told, on_card, case.volume, case.job.id), spool, on_card)


def analysis_of(case: Case) -> Analysis:
    findings = findings_from(plus(case), CARD, case.volume, case.job.id)
    return Analysis(Origin.of(case.job, CARD, case.volume, EQUIPMENT), case.volume, findings, plus(case))


def both(analysis: Analysis) -> tuple[bytes, bytes]:
    (pm,), (grey,) = build_pm(analysis), build_grey(analysis)
    return file_bytes(pm), file_bytes(grey)


def values_of(ds: Dataset) -> NDArray[np.float64]:
    """Every frame in the unit that the object names, by its bytes."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    if "FloatPixelData" in ds:
        (mapping,) = shared.RealWorldValueMappingSequence
        slope, intercept = float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)
        stored = np.frombuffer(ds.FloatPixelData, "<f4")
    else:
        found = re.search(r"Value in Hounsfield unit = stored x (\S+) \+ (\S+)\. ", ds.DerivationDescription)
        assert found
        slope, intercept = map(float, found.groups())
        stored = ds.pixel_array
    return stored.reshape(ds.NumberOfFrames, ds.Rows, ds.Columns).astype(np.float64) * slope + intercept


@pytest.mark.parametrize("name", GRIDS)
def test_whatever_way_the_patient_was_cut_every_value_is_at_its_place(name: str, tmp_path: Path, spool: Spool) -> None:
    """The truth is a function of the patient: each frame is asked at the places that its own header names."""
    paths, shift_mm = write(tmp_path / "ct", COARSE | GRIDS[name])
    analysis = analysis_of(read(paths, spool))

    for data, prove, tolerance in zip(both(analysis), (prove_pm, prove_grey), (1e-4, 0.02), strict=True):
        prove(data, analysis)
        ds = dcmread(BytesIO(data))
        shared = ds.SharedFunctionalGroupsSequence[0]
        frames = values_of(ds)
        assert len(frames) == len(paths)
        for item, frame in zip(ds.PerFrameFunctionalGroupsSequence, frames, strict=True):
            at = Dataset()
            at.ImagePositionPatient = item.PlanePositionSequence[0].ImagePositionPatient
            at.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            at.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
            at.Rows, at.Columns = ds.Rows, ds.Columns
            np.testing.assert_allclose(frame, hu_at(places(at, shift_mm)) + 100.25, atol=tolerance)


def test_the_objects_say_what_their_values_are_and_who_made_them(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = made(case, spool)

    pm, grey = (dcmread(BytesIO(built.files[kind])) for kind in ("pm", "grey"))
    assert (pm.SOPClassUID, grey.SOPClassUID) == (
        ParametricMapStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    )
    assert (pm.BitsAllocated, len(pm.FloatPixelData)) == (32, 4 * case.volume.array.size)
    for ds in (pm, grey):
        assert ds.SeriesDescription == "AI Denoised CT: Lung segmentation (research only)"
        assert "not for clinical use" in ds.DerivationDescription
        assert ds.FrameOfReferenceUID == case.volume.datasets[0].FrameOfReferenceUID
        assert ds.BurnedInAnnotation == "NO"
    (mapping,) = pm.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "112031"
    frame = pm.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert frame.DerivationCodeSequence[0].CodeValue == "113087"
    volume = hd.pm.ParametricMap.from_dataset(pm).get_volume(apply_real_world_transform=True)
    assert volume.array.max() == case.volume.array.max() + np.float32(100.25)
    assert problems(*built.files.values(), sources=case.sources) == []


def test_the_report_says_what_is_in_the_body(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = made(case, spool)

    text = as_text(report_lines(built.files["sr"]))

    body = case.volume.array[case.volume.array > -900]
    assert "Denoised CT" in text
    assert "Mean attenuation coefficient" in text
    assert "An image that the model made, no acquisition." in text
    assert "Nothing was found" not in text
    said = built.summaries["sr"]["maps"]
    assert [each["label"] for each in said] == ["Denoised CT"]
    numbers = re.fullmatch(r"mean (\S+) HU, (\S+) HU to (\S+) HU in the body", said[0]["said"])
    assert numbers
    mean, lowest, highest = (float(number) for number in numbers.groups())
    assert mean == pytest.approx(body.mean() + 100.25, abs=20)  # of every other voxel
    assert lowest > -900 < mean < highest <= body.max() + 101
    assert built.summaries["sr"]["negative"] is False
    assert dcmread(BytesIO(built.files["pm"])).SOPInstanceUID in str(built.sr)


def test_numbers_of_the_model_become_values_by_slope_and_intercept(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    shares = Prediction((), {}, "cpu", images={"denoised": (case.volume.array + 1024) / np.float32(4096)})

    built = made(case, spool, shares, maps=(replace(DENOISED, slope=4096.0, intercept=-1024.0, window=(40, 400)),))

    pm = dcmread(BytesIO(built.files["pm"]))
    order = {ds.SOPInstanceUID: k for k, ds in enumerate(case.volume.datasets)}
    for item, frame in zip(pm.PerFrameFunctionalGroupsSequence, values_of(pm), strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(frame, case.volume.array[order[source]], atol=1e-3)
    shown = pm.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert (shown.WindowCenter, shown.WindowWidth) == (40, 400)


def test_several_images_have_an_object_each_beside_a_segmentation(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    mask = case.volume.array > 0
    prediction = replace(
        predict({"left lung": mask, "right lung": np.zeros_like(mask)}),
        images={"denoised": plus(case).images["denoised"], "doubt": np.zeros(mask.shape, np.float32)},
    )
    lesion = replace(card_with().segments[0], type=Code("52988006", "SCT", "Lesion"), laterality=None)

    built = made(
        case, spool, prediction, segments=(lesion,), maps=(DENOISED, DOUBT), outputs=(OutputKind.SEG, *OUTPUTS)
    )

    assert list(built.files) == ["seg", "pm", "pm-2", "grey", "grey-2", "sr"]
    doubt = dcmread(BytesIO(built.files["pm-2"]))
    assert (doubt.SeriesDescription[:9], values_of(doubt).any()) == ("AI Doubt:", np.False_)
    assert dcmread(BytesIO(built.files["pm"])).SeriesInstanceUID != doubt.SeriesInstanceUID
    assert problems(*built.files.values(), sources=case.sources) == []


def test_pictures_of_a_model_that_answers_with_an_image_show_that_image(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    inverted = Prediction((), {}, "cpu", images={"denoised": -case.volume.array})
    kinds = (OutputKind.SC, OutputKind.OVERLAY, OutputKind.CAPTURES, OutputKind.PDF)

    built = made(case, spool, inverted, outputs=kinds)

    shown = dcmread(BytesIO(built.files["overlay"])).pixel_array[..., 0].astype(float)
    middle = shown[:, 20:-20, 4:-4]  # where nothing is written
    wanted = -case.volume.array[:, 20:-20, 4:-4]
    assert np.corrcoef(middle.ravel(), wanted.ravel())[0, 1] > 0.9
    assert sum(name.startswith("captures") for name in built.files) == len(case.volume.datasets)
    assert {"sc", "pdf"} <= set(built.files)


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ({}, "no image named 'denoised'; it has: none"),
        ({"other": np.zeros((2, 2, 2), np.float32)}, "it has: other"),
        ({"denoised": np.full((3, 4, 5), 7.5, np.float32)}, "has the value 7.5 everywhere"),
    ],
)
def test_an_image_that_is_none_is_refused(images: dict[str, NDArray[np.float32]], why: str) -> None:
    with pytest.raises(ModelInvalidOutput, match=why):
        in_units(Prediction((), {}, "cpu", images=images), CARD)


def test_an_image_on_another_grid_is_refused(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    smaller = Prediction((), {}, "cpu", images={"denoised": case.volume.array[:, ::2]})

    with pytest.raises(ResultError, match="has the grid"):
        build_pm(replace(analysis_of(case), marks=smaller))


def _exchanged(ds: Dataset) -> None:
    items = ds.PerFrameFunctionalGroupsSequence
    items[0], items[1] = items[1], items[0]


def _in_other_units(ds: Dataset) -> None:
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].RealWorldValueIntercept = 1000.0


def _left_out(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[-1]
    ds.NumberOfFrames -= 1


def _mirrored(ds: Dataset) -> None:
    ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def _brighter(ds: Dataset) -> None:
    if "FloatPixelData" in ds:
        ds.FloatPixelData = (np.frombuffer(ds.FloatPixelData, "<f4") + np.float32(1)).tobytes()
    else:
        ds.decompress(generate_instance_uid=False)
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") // 2).tobytes()


@pytest.mark.parametrize("kind", ["pm", "grey"])
def test_an_object_that_lies_is_never_sent(kind: str, tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    analysis = analysis_of(case)
    data = dict(zip(("pm", "grey"), both(analysis), strict=True))[kind]
    prove = {"pm": prove_pm, "grey": prove_grey}[kind]
    prove(data, analysis)

    for lie in (_exchanged, _left_out, _mirrored, _brighter, *((_in_other_units,) if kind == "pm" else ())):
        ds = dcmread(BytesIO(data))
        lie(ds)
        with pytest.raises((ResultError, ValueError)):
            prove(file_bytes(ds), analysis)
