"""What a model says of the whole scan, and of boxes, reaches the report in codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.contract import Detection, ModelInvalidOutput, Prediction
from dicom_node.domain.finding import Code
from dicom_node.domain.model import ClassificationCard, DetectionCard, ValueCard
from dicom_node.results.words import BOX
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.unit.results.case import built_of, card_with, make_case
from tests.unit.results.test_sr import items

DENSITY = Code("111031", "DCM", "Image View")
ANSWERS = {"A": Code("C1", "99TEST", "Fatty"), "B": Code("C2", "99TEST", "Dense")}
AGE = ValueCard("age", Code("397669002", "SCT", "Age"), Code("a", "UCUM", "year"))
CARD = card_with(segments=(), classifications=(ClassificationCard("pred", DENSITY, ANSWERS),), values=(AGE,))
SAID = Prediction((), {}, "cpu", classes={"pred": {"A": 0.25, "B": 0.75}}, values={"age": 61.2345})
ABNORMAL, NODULE = Code("49755003", "SCT", "Morphologically Abnormal Structure"), Code("27925004", "SCT", "Nodule")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", 0)
    made.prepare()
    return made


def test_class_and_number_of_the_whole_scan_stand_in_the_report(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    findings = findings_from(SAID, CARD, case.volume, case.job.id)
    built = built_of(case, SAID, findings, spool, CARD)

    (answer,) = items(built.sr, "Image View")
    (age,) = items(built.sr, "Age")
    (outcome,) = items(built.sr, "CAD Processing and Findings Summary")
    comments = " ".join(str(item.TextValue) for item in items(built.sr, "Comment"))
    assert answer.ConceptCodeSequence[0].CodeValue == "C2"
    assert float(age.MeasuredValueSequence[0].NumericValue) == 61.2
    assert age.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "a"
    assert outcome.ConceptCodeSequence[0].CodeMeaning == "All algorithms succeeded; with findings"
    assert "Dense 75%" in comments
    assert "Nothing was found" not in comments
    assert not findings.is_negative


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"classes": {}}, "no classes named 'pred'"),
        ({"classes": {"pred": {"Z": 1.0}}}, "'Z', an answer that its card does not have"),
        ({"values": {}}, "no number named 'age'"),
    ],
)
def test_what_the_card_asks_for_has_to_be_answered(said: dict[str, object], why: str, tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    with pytest.raises(ModelInvalidOutput, match=why):
        findings_from(replace(SAID, **said), CARD, case.volume, case.job.id)  # type: ignore[arg-type]


def test_a_box_is_a_finding_that_is_not_measured(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    instances = np.zeros(case.volume.array.shape, np.uint8)
    instances[8:12, 28:34, 42:48] = 1
    card = card_with(
        segments=(),
        detections=(
            DetectionCard("label 0", "Nodule", "Nodule detection", ABNORMAL, NODULE, derive=("lung_rads_2022",)),
        ),
    )
    said = Prediction((), {}, "cpu", (Detection("label 0", 0.9, outlined=False),), instances)

    findings = findings_from(said, card, case.volume, case.job.id)
    built = built_of(case, said, findings, spool, card)

    (nodule,) = findings.segments
    assert (nodule.score, nodule.measurements, nodule.qualities, nodule.voxels) == (0.9, (), (), 4 * 6 * 6)
    assert findings.qualities == ()
    assert BOX in [str(item.TextValue) for item in items(built.sr, "Comment")]
    (certainty,) = items(built.sr, "Certainty of Finding")
    assert float(certainty.MeasuredValueSequence[0].NumericValue) == 90.0
