"""What is sent was read back from its own bytes and lies where the model marked it; anything else stays here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results import BUILDERS, PROOFS
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.pm import build_pm
from dicom_node.results.proof import prove_fractional, prove_labelmap, prove_pm, prove_seg
from dicom_node.results.seg import build_fractional, build_labelmap, build_seg
from dicom_node.spool import Spool
from tests.unit.results.case import (
    ALL,
    CARD,
    EQUIPMENT,
    LEFT,
    RIGHT,
    analysis_of,
    both_lungs,
    built_of,
    card_with,
    make_case,
    nodules,
)


def flip_a_voxel(result: Dataset) -> None:
    if result.file_meta.TransferSyntaxUID.is_compressed:
        result.decompress(generate_instance_uid=False)
    pixels = bytearray(result.PixelData)
    pixels[len(pixels) // 2] ^= 1
    result.PixelData = bytes(pixels)


def exchange_two_slices(result: Dataset) -> None:
    frames = result.PerFrameFunctionalGroupsSequence
    first, second = frames[0], frames[-2]  # the ends of a box are alike
    for keyword in ("DerivationImageSequence", "PlanePositionSequence"):
        first[keyword], second[keyword] = second[keyword], first[keyword]


def name_another_slice(result: Dataset) -> None:
    first, second = result.PerFrameFunctionalGroupsSequence[:2]
    first.DerivationImageSequence = second.DerivationImageSequence


def move_a_frame(result: Dataset) -> None:
    result.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


def mirror(result: Dataset) -> None:
    result.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def stretch(result: Dataset) -> None:
    result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.5, 1.6]


def change_the_frame_of_reference(result: Dataset) -> None:
    result.FrameOfReferenceUID = "1.2.3"


def drop_a_frame(result: Dataset) -> None:
    del result.PerFrameFunctionalGroupsSequence[0]


LIES = (
    flip_a_voxel,
    exchange_two_slices,
    name_another_slice,
    move_a_frame,
    mirror,
    stretch,
    change_the_frame_of_reference,
    drop_a_frame,
)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    case = make_case(tmp_path_factory.mktemp("ct"))
    prediction, findings = nodules(case)
    likely = {each.output: prediction.mask(each.output) * np.uint8(200) for each in findings.present}
    prediction = replace(prediction, probabilities=likely)
    return Analysis(Origin.of(case.job, CARD, case.volume, EQUIPMENT), case.volume, findings, prediction)


def without_overlap(analysis: Analysis) -> Analysis:
    """Leave the nodules out, which lie in the lungs."""
    lungs = tuple(each for each in analysis.findings.segments if each.score is None)
    return replace(analysis, findings=replace(analysis.findings, segments=lungs), _numbered=[])


@pytest.fixture(scope="module")
def written(analysis: Analysis) -> dict[str, bytes]:
    seg, (pm,) = build_seg(analysis), build_pm(analysis)
    assert seg is not None
    labelmap, fractional = build_labelmap(without_overlap(analysis)), build_fractional(analysis)
    others = {"labelmap": file_bytes(labelmap), "fractional": file_bytes(fractional)}
    return {"seg": file_bytes(seg), "pm": file_bytes(pm), **others}


PROVE = {
    "seg": prove_seg,
    "pm": prove_pm,
    "labelmap": lambda data, analysis: prove_labelmap(data, without_overlap(analysis)),
    "fractional": prove_fractional,
}


@pytest.mark.parametrize("kind", PROVE)
@pytest.mark.parametrize("lie", LIES)
def test_an_object_that_lies_is_found_out(
    lie: Callable[[Dataset], None], kind: str, analysis: Analysis, written: dict[str, bytes]
) -> None:
    PROVE[kind](written[kind], analysis)
    result = dcmread(BytesIO(written[kind]))
    lie(result)
    with pytest.raises(ResultError):
        PROVE[kind](file_bytes(result), analysis)


def test_a_voxel_without_a_frame_is_found_out(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    masks = both_lungs(case)
    seg = build_seg(analysis_of(case, masks))
    assert seg is not None
    later = analysis_of(case, masks)
    masks["right lung"][18, 20, 20] = True
    with pytest.raises(ResultError, match="segment 2 has no frame for slice"):
        prove_seg(file_bytes(seg), later)


def test_what_is_not_proved_is_kept_in_quarantine_and_not_among_the_results(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    left, right, *found = findings.segments
    exchanged = replace(left, laterality=RIGHT), replace(right, laterality=LEFT)
    with pytest.raises(ResultError, match="sides are exchanged"):
        built_of(case, prediction, replace(findings, segments=(*exchanged, *found)), spool, card_with(outputs=ALL))
    assert not list((spool.root / "results").iterdir())
    kept = {OutputKind.of(path.stem) for path in (spool.root / "quarantine" / case.job.id).iterdir()}
    assert kept == set(ALL)


def test_every_kind_with_a_place_in_the_patient_is_proved() -> None:
    assert {kind.value for kind in BUILDERS} - {kind.value for kind in PROOFS} == {"sc", "captures", "pdf", "kos"}
