"""Guideline categories at every boundary of their tables, and the sentences that show what led to them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.brock import Risk, probability_percent
from dicom_node.domain.fleischner import size_class
from dicom_node.domain.lung_rads import CATEGORIES, Exam, exam_category, nodule_category
from dicom_node.domain.nodule import Attenuation, Conclusion, Margin, Nodule, NotCalculated, mean_in_tenths
from dicom_node.domain.severity import grade_of
from dicom_node.domain.tnm import t_by_size

SOLID, PART_SOLID, GROUND_GLASS = Attenuation.SOLID, Attenuation.PART_SOLID, Attenuation.GROUND_GLASS


def nodule(attenuation: Attenuation | None, mm: float, solid_mm: float = 0.0, **known: object) -> Nodule:
    return Nodule(attenuation, mm, mm, solid_mm, solid_mm, **known)  # type: ignore[arg-type]


def said(result: Conclusion | NotCalculated) -> str:
    assert isinstance(result, Conclusion), result
    return result.value


@pytest.mark.parametrize(
    ("attenuation", "mm", "solid_mm", "category"),
    [
        (SOLID, 3.0, 0, "2"),
        (SOLID, 5.94, 0, "2"),
        (SOLID, 5.95, 0, "3"),
        (SOLID, 7.94, 0, "3"),
        (SOLID, 7.95, 0, "4A"),
        (SOLID, 14.94, 0, "4A"),
        (SOLID, 14.95, 0, "4B"),
        (SOLID, 80.0, 0, "4B"),
        (PART_SOLID, 5.94, 5.0, "2"),
        (PART_SOLID, 6.0, 0.0, "3"),
        (PART_SOLID, 29.0, 5.94, "3"),
        (PART_SOLID, 29.0, 5.95, "4A"),
        (PART_SOLID, 29.0, 7.94, "4A"),
        (PART_SOLID, 29.0, 7.95, "4B"),
        (GROUND_GLASS, 29.94, 0, "2"),
        (GROUND_GLASS, 29.95, 0, "3"),
    ],
)
def test_lung_rads_at_every_boundary(attenuation: Attenuation, mm: float, solid_mm: float, category: str) -> None:
    assert said(nodule_category(nodule(attenuation, mm, solid_mm))) == category


def test_lung_rads_rounds_both_axes_and_then_their_mean() -> None:
    assert str(mean_in_tenths(9.0, 7.8).mm) == "8.4"
    assert str(mean_in_tenths(6.0, 5.9).mm) == "6.0", "5.95, halves upwards"
    assert str(mean_in_tenths(6.04, 5.84).mm) == "5.9", "6.0 and 5.8"
    result = nodule_category(Nodule(SOLID, 9.0, 7.8))
    assert result == Conclusion("4A", "solid, mean diameter 8.4 mm (9.0 x 7.8), baseline: 8 to < 15 mm → 4A")


def test_lung_rads_shows_the_solid_part() -> None:
    result = nodule_category(Nodule(PART_SOLID, 16.0, 14.0, 7.2, 6.0))
    assert isinstance(result, Conclusion)
    assert result.because == (
        "part-solid, mean diameter 15.0 mm (16.0 x 14.0), baseline: solid part 6.6 mm (7.2 x 6.0), 6 to < 8 mm → 4A"
    )


def test_lung_rads_never_applies_the_juxtapleural_rule_but_says_where_a_reader_might() -> None:
    at_surface = nodule_category(nodule(SOLID, 8.0, surface_mm=0.5, margin=Margin.SMOOTH))
    assert isinstance(at_surface, Conclusion)
    assert at_surface.value == "4A"
    assert "2 if a reader finds it" in at_surface.because
    for other in (
        nodule(SOLID, 8.0, surface_mm=5.0),
        nodule(SOLID, 8.0, surface_mm=0.0, margin=Margin.SPICULATED),
        nodule(SOLID, 10.0, surface_mm=0.0),
        nodule(SOLID, 5.0, surface_mm=0.0),
        nodule(SOLID, 8.0),
    ):
        result = nodule_category(other)
        assert isinstance(result, Conclusion)
        assert "reader" not in result.because


@given(
    st.sampled_from([SOLID, GROUND_GLASS]),
    st.floats(0.5, 120, allow_nan=False),
    st.floats(0, 60, allow_nan=False),
)
def test_a_larger_nodule_never_has_a_lower_category(attenuation: Attenuation, mm: float, more_mm: float) -> None:
    smaller, larger = (said(nodule_category(nodule(attenuation, size))) for size in (mm, mm + more_mm))
    assert CATEGORIES.index(smaller) <= CATEGORIES.index(larger)
    assert "4X" not in (smaller, larger)


@given(st.floats(0.5, 60), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_solid_part_never_has_a_lower_category(mm: float, share: float, more: float) -> None:
    solid = [mm * share, mm * (share + (1 - share) * more)]
    low, high = (CATEGORIES.index(said(nodule_category(nodule(PART_SOLID, mm, part)))) for part in solid)
    assert low <= high


def test_the_exam_has_the_highest_category_of_its_nodules() -> None:
    nodules = {"Nodule 1": nodule(SOLID, 7.0), "Nodule 2": nodule(SOLID, 20.0), "Nodule 3": nodule(GROUND_GLASS, 9.0)}
    categories = {name: nodule_category(each) for name, each in nodules.items()}
    whole = exam_category(Exam(categories))
    assert isinstance(whole, Conclusion)
    assert whole.value == "4B"
    assert whole.because.startswith("highest of 3: Nodule 2, solid, mean diameter 20.0 mm")
    partly = exam_category(Exam(categories, "the lungs are not wholly in the scan"))
    assert isinstance(partly, Conclusion)
    assert partly.because.endswith("; at least: the lungs are not wholly in the scan")


def test_an_exam_without_nodules_is_category_1_only_where_everything_was_searched() -> None:
    assert said(exam_category(Exam({}))) == "1"
    assert exam_category(Exam({}, "right lung not found")) == NotCalculated("right lung not found")


def test_a_nodule_of_unknown_density_has_no_category_and_lowers_none() -> None:
    unknown = nodule_category(nodule(None, 30.0))
    assert isinstance(unknown, NotCalculated)
    assert isinstance(exam_category(Exam({"Nodule 1": unknown})), NotCalculated)
    both = exam_category(Exam({"Nodule 1": unknown, "Nodule 2": nodule_category(nodule(SOLID, 7.0))}))
    assert isinstance(both, Conclusion)
    assert both.value == "3"
    assert both.because.endswith("at least: 1 without a category")


@pytest.mark.parametrize(
    ("attenuation", "mm", "count", "value"),
    [
        (SOLID, 5.4, 1, "S1-LT6"),
        (SOLID, 5.5, 1, "S1-6-8"),
        (SOLID, 8.4, 1, "S1-6-8"),
        (SOLID, 8.5, 1, "S1-GT8"),
        (SOLID, 8.5, 2, "SN-GT8"),
        (GROUND_GLASS, 5.4, 1, "G1-LT6"),
        (GROUND_GLASS, 5.5, 3, "GN-GE6"),
        (PART_SOLID, 40.0, 1, "P1-GE6"),
    ],
)
def test_fleischner_classes_at_every_boundary(attenuation: Attenuation, mm: float, count: int, value: str) -> None:
    assert said(size_class(nodule(attenuation, mm), count, 60.0)) == value


def test_fleischner_is_not_for_patients_under_35() -> None:
    assert isinstance(size_class(nodule(SOLID, 7.0), 1, 34.9), NotCalculated)
    unknown = size_class(nodule(SOLID, 7.0), 1, None)
    assert isinstance(unknown, Conclusion)
    assert (
        unknown.because
        == "solid, mean diameter 7 mm (7.0 x 7.0) → single solid nodule, 6 to 8 mm; the age is not known"
    )


@pytest.mark.parametrize(
    ("attenuation", "mm", "solid_mm", "category"),
    [
        (SOLID, 10.4, 0, "T1a"),
        (SOLID, 10.5, 0, "T1b"),
        (SOLID, 20.4, 0, "T1b"),
        (SOLID, 20.5, 0, "T1c"),
        (SOLID, 30.4, 0, "T1c"),
        (SOLID, 30.5, 0, "T2a"),
        (SOLID, 40.5, 0, "T2b"),
        (SOLID, 50.5, 0, "T3"),
        (SOLID, 70.4, 0, "T3"),
        (SOLID, 70.5, 0, "T4"),
        (GROUND_GLASS, 30.4, 0, "Tis"),
        (GROUND_GLASS, 30.5, 0, "T1a"),
        (PART_SOLID, 30.4, 5.4, "T1mi"),
        (PART_SOLID, 30.5, 5.4, "T1a"),
        (PART_SOLID, 30.0, 5.5, "T1a"),
        (PART_SOLID, 30.0, 10.5, "T1b"),
        (PART_SOLID, 60.0, 25.0, "T1c"),
    ],
)
def test_t_by_size_at_every_boundary(attenuation: Attenuation, mm: float, solid_mm: float, category: str) -> None:
    result = t_by_size(nodule(attenuation, mm, solid_mm))
    assert said(result) == category
    assert isinstance(result, Conclusion)
    assert result.because.endswith("by size, if it were a cancer")


RISK = Risk(62.0, True, False, 1.0, 1, smokes=True)
TYPICAL = nodule(SOLID, 10.0, upper_lobe=True, margin=Margin.SPICULATED)


def log_odds(found: Nodule, risk: Risk) -> float:
    result = probability_percent(found, risk)
    assert not isinstance(result, NotCalculated), result
    share = result[0] / 100
    return math.log(share / (1 - share))


def test_brock_is_the_published_sum() -> None:
    # 2b by hand: -6.7892 + 0.6011 - 5.3854 (1 - 1.58113883) + 0.6581 - 0.0824 (1 - 4) + 0.7729
    assert log_odds(TYPICAL, RISK) == pytest.approx(-6.7892 + 0.6011 + 3.12967 + 0.6581 + 0.2472 + 0.7729, abs=1e-3)
    # 2a: -6.8071 + 0.5635 - 5.6693 (1 - 1.58113883) + 0.7116 - 0.0803 (1 - 4)
    without = nodule(SOLID, 10.0, upper_lobe=True)
    assert log_odds(without, RISK) == pytest.approx(-6.8071 + 0.5635 + 3.29465 + 0.7116 + 0.2409, abs=1e-3)


@pytest.mark.parametrize(
    ("changed_nodule", "changed_risk", "difference"),
    [
        ({}, {"age_years": 72.0}, 0.287),
        ({}, {"female": False}, -0.6011),
        ({}, {"family_history": True}, 0.2961),
        ({}, {"emphysema_percent": 5.0}, 0.2953),
        ({}, {"nodules": 5}, -0.3296),
        ({"upper_lobe": False}, {}, -0.6581),
        ({"margin": Margin.SMOOTH}, {}, -0.7729),
        ({"attenuation": PART_SOLID}, {}, 0.3770),
        ({"attenuation": GROUND_GLASS}, {}, -0.1276),
    ],
)
def test_each_input_of_brock_weighs_what_was_published(
    changed_nodule: dict[str, object], changed_risk: dict[str, object], difference: float
) -> None:
    changed = log_odds(replace(TYPICAL, **changed_nodule), replace(RISK, **changed_risk))  # type: ignore[arg-type]
    assert changed - log_odds(TYPICAL, RISK) == pytest.approx(difference, abs=1e-6)


def test_brock_names_every_input_that_is_missing() -> None:
    unknown = Risk(None, None, None, None, 1)
    result = probability_percent(nodule(None, 10.0), unknown)
    assert result == NotCalculated("age, sex, family history of lung cancer, emphysema, attenuation, lobe unknown")
    assert probability_percent(TYPICAL, Risk(62.0, True, None, 1.0, 1)) == NotCalculated(
        "family history of lung cancer unknown"
    )


def test_brock_shows_its_inputs_and_whom_it_was_made_for() -> None:
    result = probability_percent(TYPICAL, RISK)
    assert not isinstance(result, NotCalculated)
    assert result[1] == Conclusion(
        "full model 2b",
        "woman, 62 years, no family history, no emphysema (1.0 % below -950 HU), solid, 10.0 mm, upper lobe, 1 nodule, "
        "spiculated → 20.1 %",
    )
    stranger = probability_percent(TYPICAL, Risk(40.0, True, False, 1.0, 1))
    assert not isinstance(stranger, NotCalculated)
    assert "made for smokers and former smokers of 50 to 75 years" in stranger[1].because


@pytest.mark.parametrize(
    ("percent", "grade"),
    [
        (0.0, 0),
        (0.4, 0),
        (0.5, 1),
        (4.4, 1),
        (4.5, 2),
        (25.4, 2),
        (25.5, 3),
        (49.4, 3),
        (49.5, 4),
        (75.4, 4),
        (75.5, 5),
    ],
)
def test_grades_of_opacification_at_every_boundary(percent: float, grade: int) -> None:
    found, conclusion = grade_of(percent)
    assert found == grade
    assert conclusion.because.endswith(f"grade {grade} of 5")
