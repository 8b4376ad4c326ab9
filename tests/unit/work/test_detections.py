"""Detections become measured findings with categories; what cannot be is refused, what is too much is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from ai.contract import Detection, ModelInvalidOutput, Prediction
from dicom_node.domain import codes
from dicom_node.domain.finding import Code, Findings, NotRun, Segment, Tracked
from dicom_node.volume import Volume
from dicom_node.work.findings import findings_from
from tests.unit.work.chest import CARD, Drawn, chest

JOB, SERIES = "00000000-0000-0000-0000-000000000007", "00000000-0000-0000-0000-000000000008"
DEEP = (230.0, 125.0, 60.0)  # in the lower third of the left lung
FINE = (1.25, 1.0, 1.25)


def value(segment: Segment, name: str, derivation: str = "") -> float | None:
    (found,) = [
        m
        for m in segment.measurements
        if m.name.meaning == name and (not derivation or (m.derivation and m.derivation.meaning == derivation))
    ]
    return found.value


def quality(findings: Findings | Segment, name: str) -> tuple[str, str]:
    (found,) = [q for q in findings.qualities if q.name.meaning.startswith(name)]
    return found.value.meaning, found.note


@pytest.fixture(scope="module")
def findings() -> Findings:
    drawn = chest(
        Drawn(DEEP, 9.0),
        Drawn((90.0, 125.0, 190.0), 16.0, "part-solid", "spiculated", score=0.95, core_mm=7.0),
        Drawn((90.0, 60.0, 120.0), 20.0, "ground-glass", score=0.6),
        Drawn((90.0, 125.0, 120.0), 8.0, score=0.3),
        spacing_mm=FINE,
    )
    return findings_from(drawn.prediction(), CARD, drawn.volume, JOB, series_id=SERIES)


def test_detections_follow_the_segments_surest_first(findings: Findings) -> None:
    assert [(s.label, s.output, s.number, s.score) for s in findings.segments] == [
        ("Left lung", "left lung", 1, None),
        ("Right lung", "right lung", 2, None),
        ("Nodule 1", "nodule/2", 3, 0.95),
        ("Nodule 2", "nodule/1", 4, 0.9),
        ("Nodule 3", "nodule/3", 5, 0.6),
    ], "the fourth lies below the operating threshold"


def test_a_nodule_is_measured(findings: Findings) -> None:
    nodule = findings.segments[3]
    assert value(nodule, "Long axis") == pytest.approx(9.0, abs=0.5)
    assert value(nodule, "Short axis") == pytest.approx(9.0, abs=0.5)
    assert value(nodule, "Volume") == pytest.approx(np.pi / 6 * 9**3, rel=0.1)
    assert value(nodule, "Attenuation Coefficient", "Mean") == 30
    assert value(nodule, "Distance to lung surface") == pytest.approx(33.8, abs=1.5)
    assert nodule.laterality == codes.LEFT
    assert nodule.region == codes.LUNG
    assert not [m for m in nodule.measurements if m.name == codes.SOLID_DIAMETER], "it is all solid"


def test_the_solid_part_of_a_part_solid_nodule_is_measured_apart(findings: Findings) -> None:
    nodule = findings.segments[2]
    assert value(nodule, "Diameter of solid part") == pytest.approx(7.0, abs=0.5)
    assert value(nodule, "Diameter") == pytest.approx(16.0, abs=0.5)
    assert nodule.laterality == codes.RIGHT


def test_classes_zone_and_categories_say_what_they_come_from(findings: Findings) -> None:
    nodule = findings.segments[3]
    assert quality(nodule, "Density") == ("solid", "90%")
    assert quality(nodule, "Margins") == ("Smooth", "80%")
    assert quality(nodule, "Third")[0] == "Lower zone of lung"
    category, note = quality(nodule, "Lung-RADS")
    assert category == "Lung-RADS 4A"
    assert note.startswith("solid, mean diameter 9.")
    assert note.endswith("baseline: 8 to < 15 mm → 4A")
    assert quality(nodule, "Fleischner")[0] == "one of several solid nodules, > 8 mm"
    assert quality(nodule, "TNM")[0] == "T1a by size"
    assert quality(findings.segments[2], "Third")[0] == "Upper zone of lung"
    assert quality(findings.segments[2], "Lung-RADS")[0] == "Lung-RADS 4A"
    assert quality(findings.segments[4], "Lung-RADS")[0] == "Lung-RADS 2"
    category, note = quality(findings, "Lung-RADS")
    assert category == "Lung-RADS 4A"
    assert note.startswith("highest of 3: Nodule 1, part-solid")
    assert "at least" not in note


def test_a_risk_without_its_inputs_is_not_calculated_and_says_which_are_missing(findings: Findings) -> None:
    assert findings.not_run == (
        NotRun("Malignancy risk", "family history of lung cancer, lobe unknown", "not calculated"),
    )


def test_lungs_are_measured_without_the_nodules_in_them(findings: Findings) -> None:
    assert value(findings.segments[0], "Emphysema index (below -950 HU)") == 0.0
    assert value(findings.segments[0], "Opacified share of lung") == 0.0
    assert quality(findings.segments[0], "Grade")[0] == "Grade 0 of 5"


def test_a_scan_without_nodules_is_category_1_only_where_both_lungs_were_searched_whole() -> None:
    drawn = chest()
    whole = findings_from(drawn.prediction(), CARD, drawn.volume, JOB)
    assert quality(whole, "Lung-RADS") == ("Lung-RADS 1", "no nodule was found in either lung → 1")
    above = np.s_[40:]  # the bases are not in the scan
    cut = Volume(drawn.volume.array[above], drawn.volume.affine, drawn.volume.datasets)
    prediction = chest().prediction({name: lung[above] for name, lung in drawn.lungs.items()})
    prediction = replace(prediction, instances=drawn.instances[above])
    partly = findings_from(prediction, CARD, cut, JOB)
    assert not partly.qualities
    assert partly.not_run == (NotRun("Lung-RADS category", "the lungs are not wholly in the scan", "not calculated"),)


def test_what_was_not_run_is_said_and_not_reported() -> None:
    drawn = chest(Drawn(DEEP, 9.0))
    findings = findings_from(drawn.prediction(), CARD, drawn.volume, JOB, not_run={"nodule": "slice spacing 8 mm"})
    assert [s.label for s in findings.segments] == ["Left lung", "Right lung"]
    assert not findings.qualities, "a scan that was not searched has no category"
    assert [n.text for n in findings.not_run] == ["Nodule detection not run: slice spacing 8 mm"]


def test_nodules_outside_of_the_lungs_and_beyond_the_limit_are_left_out_and_said() -> None:
    inside = [Drawn((230.0, 125.0, 40.0 + 25 * n), 8.0, score=0.9 - n / 100) for n in range(7)]
    drawn = chest(Drawn((160.0, 30.0, 120.0), 10.0, score=0.99), *inside)
    findings = findings_from(drawn.prediction(), CARD, drawn.volume, JOB)
    assert [s.output for s in findings.segments[2:]] == [f"nodule/{n}" for n in range(2, 7)]
    assert [n.text for n in findings.not_run][:2] == [
        "1 further nodule candidate not reported: outside of left lung and right lung",
        "2 further nodule candidates not reported: the card reports at most 5",
    ]


def test_a_nodule_keeps_its_tracking_uid_at_every_attempt_and_when_slices_come_late() -> None:
    drawn = chest(Drawn(DEEP, 9.0), Drawn((90.0, 125.0, 190.0), 16.0))
    first = findings_from(drawn.prediction(), CARD, drawn.volume, JOB, series_id=SERIES)
    again = findings_from(drawn.prediction(), CARD, drawn.volume, JOB, series_id=SERIES)
    assert first == again
    later = chest(Drawn((90.0, 125.0, 190.0), 16.0), Drawn(DEEP, 9.5), Drawn((90.0, 60.0, 120.0), 9.0))
    other_job = "00000000-0000-0000-0000-000000000009"
    grown = findings_from(later.prediction(), CARD, later.volume, other_job, series_id=SERIES, tracked=seen(first))
    uid = {s.tracking_uid for s in first.segments[2:]}
    assert uid < {s.tracking_uid for s in grown.segments[2:]}
    assert len({s.tracking_uid for s in grown.segments}) == 5


@pytest.mark.parametrize("shift_mm", [-4.0, -2.0, 0.0, 2.0, 4.0])
def test_a_nodule_whose_edges_shift_is_the_same_wherever_it_lies(shift_mm: float) -> None:
    """Across any border that a grid of names could have: its centre moves by half of its diameter."""
    for start in (226.0, 228.0, 230.0):
        drawn = chest(Drawn((start, 125.0, 60.0), 9.0))
        first = findings_from(drawn.prediction(), CARD, drawn.volume, JOB, series_id=SERIES)
        moved = chest(Drawn((start + shift_mm, 125.0, 60.0 + shift_mm / 2), 10.0))
        again = findings_from(moved.prediction(), CARD, moved.volume, JOB, series_id=SERIES, tracked=seen(first))
        assert again.segments[2].tracking_uid == first.segments[2].tracking_uid


def test_a_name_goes_to_what_shares_most_and_never_to_two() -> None:
    drawn = chest(Drawn(DEEP, 9.0))
    first = findings_from(drawn.prediction(), CARD, drawn.volume, JOB, series_id=SERIES)
    beside = DEEP[0], DEEP[1] - 10.0, DEEP[2]
    two = chest(Drawn(beside, 9.0, score=0.95), Drawn(DEEP, 8.0))
    again = findings_from(two.prediction(), CARD, two.volume, JOB, series_id=SERIES, tracked=seen(first))
    names = [segment.tracking_uid for segment in again.segments[2:]]
    assert names[1] == first.segments[2].tracking_uid
    assert names[0] not in {segment.tracking_uid for segment in first.segments}
    gone = findings_from(
        two.prediction(), CARD, two.volume, JOB, series_id=SERIES, tracked=[*seen(first), *seen(again)]
    )
    assert [segment.tracking_uid for segment in gone.segments[2:]] == names, "seen twice, it is still one"


def seen(findings: Findings) -> list[Tracked]:
    """What a later job is told of these."""
    found = [(each.tracking_uid, each.extent_mm) for each in findings.segments if each.extent_mm]
    return [Tracked("nodule", uid, extent_mm) for uid, extent_mm in found]


@pytest.mark.parametrize(
    ("detection", "said"),
    [
        (Detection("nodule", float("nan")), "score nan"),
        (Detection("nodule", 1.5), "score 1.5"),
        (Detection("nodule", 0.9, {"attenuation": {"solid": float("inf")}}), "probabilities"),
        (Detection("nodule", 0.9, {"attenuation": {"wooden": 0.9}}), "'wooden'"),
    ],
)
def test_detections_that_cannot_be_are_refused(detection: Detection, said: str) -> None:
    drawn = chest(Drawn(DEEP, 9.0))
    prediction = replace(drawn.prediction(), detections=(detection,))
    with pytest.raises(ModelInvalidOutput, match=said):
        findings_from(prediction, CARD, drawn.volume, JOB)


def test_detections_without_outlines_are_refused() -> None:
    drawn = chest(Drawn(DEEP, 9.0))
    with pytest.raises(ModelInvalidOutput, match="outlines nothing"):
        findings_from(replace(drawn.prediction(), instances=None), CARD, drawn.volume, JOB)


def _lungs(drawn: Any, how: str) -> Prediction:
    left, right = drawn.lungs["left lung"], drawn.lungs["right lung"]
    nothing, all_of_it = np.zeros_like(left), np.ones_like(left)
    answers = {
        "empty": {"left lung": nothing, "right lung": nothing},
        "everywhere": {"left lung": all_of_it, "right lung": nothing},
        "swapped": {"left lung": right, "right lung": left},
    }
    prediction: Prediction = drawn.prediction(answers[how])
    return prediction


@pytest.mark.parametrize(
    ("how", "said"), [("empty", "0 ml as lung"), ("everywhere", "whole body"), ("swapped", "on the right of")]
)
def test_lungs_that_cannot_be_are_refused(how: str, said: str) -> None:
    drawn = chest()
    with pytest.raises(ModelInvalidOutput, match=said):
        findings_from(_lungs(drawn, how), CARD, drawn.volume, JOB)


def test_no_lungs_where_the_scan_shows_none_is_an_answer() -> None:
    drawn = chest()
    drawn.volume.array[drawn.volume.array == -850] = 40
    findings = findings_from(_lungs(drawn, "empty"), CARD, drawn.volume, JOB)
    assert findings.is_negative
    assert findings.not_run[0].text == "Lung-RADS category not calculated: left lung and right lung not found"


def test_a_risk_is_calculated_where_lobe_and_order_hold_its_inputs() -> None:
    lobe = replace(CARD.segments[0], type=Code("44714003", "SCT", "Upper lobe of left lung"))
    card = replace(CARD, segments=(lobe, CARD.segments[1]))
    drawn = chest(Drawn(DEEP, 9.0))
    unasked = findings_from(drawn.prediction(), card, drawn.volume, JOB)
    assert unasked.segments[2].region == lobe.type
    assert unasked.not_run == (NotRun("Malignancy risk", "family history of lung cancer unknown", "not calculated"),)

    asked = Dataset()
    asked.ConceptNameCodeSequence = [coded(codes.FAMILY_HISTORY)]
    asked.ConceptCodeSequence = [coded(codes.YES)]
    drawn.volume.datasets[0].AcquisitionContextSequence = [asked]
    answered = findings_from(drawn.prediction(), card, drawn.volume, JOB)
    assert not answered.not_run
    assert value(answered.segments[2], "Probability of cancer") == pytest.approx(11.2, abs=1.5), (
        "9.9 % for 9 mm, 12.6 % for 10"
    )
    model, note = quality(answered.segments[2], "Brock")
    assert model == "Brock full model 2b"
    assert note.startswith("woman, 60 years, a family history, no emphysema (0.0 % below -950 HU), solid, 9.")
    assert "upper lobe, 1 nodule, smooth" in note


@pytest.mark.parametrize(
    ("organ", "said"),
    [
        (Code("42400003", "SCT", "Upper lobe of right lung"), "family history of lung cancer unknown"),
        (Code("90572001", "SCT", "Lower lobe of lung"), "family history of lung cancer unknown"),
        (Code("51185008", "SCT", "Thorax"), "family history of lung cancer, lobe unknown"),
    ],
)
def test_what_is_no_lobe_is_not_taken_for_one(organ: Code, said: str) -> None:
    card = replace(CARD, segments=(replace(CARD.segments[0], type=organ), CARD.segments[1]))
    drawn = chest(Drawn(DEEP, 9.0))
    findings = findings_from(drawn.prediction(), card, drawn.volume, JOB)
    assert findings.not_run[-1] == NotRun("Malignancy risk", said, "not calculated")


def coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item
