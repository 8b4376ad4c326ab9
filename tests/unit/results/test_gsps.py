"""Outlines on the original images, for viewers that apply presentation states."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage
from skimage.measure import grid_points_in_poly

from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.gsps import build_gsps
from dicom_node.results.header import file_bytes
from dicom_node.results.outline_proof import prove_gsps
from dicom_node.spool import Spool
from tests.peers.missing import need
from tests.peers.validators import problems
from tests.unit.results.case import CARD, NODULES, analysis_of, boxes, build, built_of, make_case, nodules
from tests.unit.results.test_rtstruct import riddled

ONLY = replace(CARD, outputs=(OutputKind.GSPS,))


def test_outlines_enclose_the_pixels_of_each_finding_on_its_own_image(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", rows=60, columns=66)
    masks = riddled(case)
    analysis = analysis_of(case, masks)
    state = build_gsps(analysis)
    assert state is not None
    number = {ds.SOPInstanceUID: k for k, ds in enumerate(case.volume.datasets)}
    found = {layer.GraphicLayer: np.zeros(case.volume.array.shape, int) for layer in state.GraphicLayerSequence}
    for annotation in state.GraphicAnnotationSequence:
        for graphic in annotation.get("GraphicObjectSequence", ()):
            points = np.array(graphic.GraphicData).reshape(-1, 2)
            assert (points >= 0).all()
            assert (
                points <= [66, 60]
            ).all()  # PS3.3 C.10.5.1.2: from the outer corner of the first to that of the last
            k = number[annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID]
            enclosed = grid_points_in_poly((60, 66), points[:, ::-1] - 0.5, binarize=False)  # type: ignore[no-untyped-call]
            found[annotation.GraphicLayer][k] += enclosed == 1
    for layer, mask in zip(("1 LEFT LUNG", "2 RIGHT LUNG"), masks.values(), strict=True):
        assert np.array_equal(found[layer] % 2 == 1, mask)
    shown = {item.ReferencedSOPInstanceUID for item in state.ReferencedSeriesSequence[0].ReferencedImageSequence}
    assert {number[uid] for uid in shown} == set(range(2, 16))


def test_findings_alone_are_outlined_and_named_in_a_window_that_shows_them(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct", spacing_mm=(2.5, 1.5, 1.2))
    prediction, findings = nodules(case)
    card = replace(ONLY, detections=(NODULES,))
    state = dcmread(BytesIO(built_of(case, prediction, findings, spool, card).files["gsps"]))
    assert state.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage
    assert [item.GraphicLayer for item in state.GraphicLayerSequence][-1] == "NOTICE"
    texts = {t.UnformattedTextValue for a in state.GraphicAnnotationSequence for t in a.TextObjectSequence}
    assert texts == {"Nodule 1: 8.4 mm", "Nodule 2: 4.2 mm", "RESEARCH ONLY - NOT FOR DIAGNOSTIC USE"}
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, -1024, "HU")
    assert (state.SoftcopyVOILUTSequence[0].WindowCenter, state.SoftcopyVOILUTSequence[0].WindowWidth) == (-500, 1600)
    assert list(state.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing) == [1.5, 1.2]


def test_the_validators_find_nothing_to_say_and_nothing_found_makes_no_state(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, ONLY)
    assert problems(built.files["gsps"], sources=case.sources) == []
    assert list(build(case, boxes(case), spool, ONLY).files) == ["sr"]


def test_images_that_are_scaled_differently_get_no_state(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    case.volume.datasets[3].RescaleSlope = 2
    assert build_gsps(analysis_of(case, riddled(case))) is None


def graphic(state: Dataset) -> Dataset:
    found: Dataset = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    return found


def shift_by_half_a_pixel(state: Dataset) -> None:
    graphic(state).GraphicData = [v + 0.6 for v in graphic(state).GraphicData]


def transpose(state: Dataset) -> None:
    graphic(state).GraphicData = np.array(graphic(state).GraphicData).reshape(-1, 2)[:, ::-1].ravel().tolist()


def name_another_image(state: Dataset) -> None:
    first, second = state.GraphicAnnotationSequence[:2]
    first.ReferencedImageSequence = second.ReferencedImageSequence


def name_no_image(state: Dataset) -> None:
    del state.GraphicAnnotationSequence[0].ReferencedImageSequence


def leave_open(state: Dataset) -> None:
    graphic(state).GraphicData = graphic(state).GraphicData[:-2]


def drop_one(state: Dataset) -> None:
    del state.GraphicAnnotationSequence[2]


def exchange_layers(state: Dataset) -> None:
    state.GraphicAnnotationSequence[0].GraphicLayer = "2 RIGHT LUNG"


@pytest.mark.parametrize(
    "lie",
    [
        shift_by_half_a_pixel,
        transpose,
        name_another_image,
        name_no_image,
        leave_open,
        drop_one,
        exchange_layers,
    ],
)
def test_outlines_that_lie_are_found_out(lie: Callable[[Dataset], None], tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    analysis = analysis_of(case, riddled(case))
    built = build_gsps(analysis)
    assert built is not None
    state = dcmread(BytesIO(file_bytes(built)))
    prove_gsps(file_bytes(state), analysis)
    lie(state)
    with pytest.raises(ResultError):
        prove_gsps(file_bytes(state), analysis)


def test_another_toolkit_shows_the_image_in_the_window_with_the_outline_around_the_nodule(
    tmp_path: Path, spool: Spool
) -> None:
    """As dcmtk understands the state: it renders the image through it, and tells which graphics belong to the image."""
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    state = tmp_path / "gsps.dcm"
    card = replace(ONLY, detections=(NODULES,))
    state.write_bytes(built_of(case, prediction, findings, spool, card).files["gsps"])
    number, out = 9, tmp_path / "out.pgm"
    command = [need("dcmp2pgm"), "-v", "-p", str(state), str(case.sources[number]), str(out)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = np.asarray(Image.open(out), int)
    windowed = np.clip((case.volume.array[number] + 500 + 800) * (255 / 1600), 0, 255)
    assert np.abs(shown - windowed).max() <= 1
    layers = (told.stdout + told.stderr).split("Graphic Layer #")[1:]
    assert [layer.splitlines()[0] for layer in layers] == ["1 [3 NODULE 1]", "2 [4 NODULE 2]", "3 [NOTICE]"]
    assert ['text 1: "Nodule 1: 8.4 mm"' in layer for layer in layers] == [True, False, False]
    [line] = re.findall(r"coordinates: (.*)", "".join(layers))
    outline = np.array([point.split("\\") for point in line.strip(" ,").split(", ")], float)
    inside = grid_points_in_poly(shown.shape, outline[:, ::-1] - 0.5, binarize=False) == 1  # type: ignore[no-untyped-call]
    assert np.array_equal(inside, prediction.mask("nodule/1")[number])
