"""Rules compare values and keep the reason of every comparison."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.rule import Condition, Operator, Role, Rule, Scalar, Values, match_rule

texts = st.text(alphabet=string.printable + "äß\0µ", max_size=12)
scalars: st.SearchStrategy[Scalar] = st.one_of(texts, st.integers(), st.floats(), st.booleans())
values = st.lists(scalars, max_size=3).map(tuple)
operands = st.lists(scalars, min_size=1, max_size=3).map(tuple)
conditions = st.builds(Condition, st.sampled_from(["Modality", "slices"]), st.sampled_from(Operator), operands)


def rule(*conditions: Condition) -> Rule:
    return Rule("chest", "lung", ("pacs",), conditions)


def holds(operator: Operator, operand: Scalar | Values, *found: Scalar) -> bool:
    operands = operand if isinstance(operand, tuple) else (operand,)
    return Condition("x", operator, operands).held_by(found)


@given(st.lists(conditions, max_size=4), st.dictionaries(st.sampled_from(["Modality", "slices"]), values))
def test_any_values_give_an_answer_with_one_reason_for_each_condition(
    some: list[Condition], found: dict[str, Values]
) -> None:
    match = match_rule(rule(*some), found)
    assert len(match.reasons) == len(some)
    assert match.matched == all(reason.held for reason in match.reasons)
    assert str(match)


@given(values, operands)
def test_not_is_the_opposite_of_one_of(found: Values, wanted: Values) -> None:
    assert holds(Operator.NOT, wanted, *found) is not holds(Operator.ONE_OF, wanted, *found)


@given(st.text(alphabet=string.ascii_letters + " ", min_size=1).filter(str.strip))
def test_text_is_compared_without_case_and_outer_spaces(text: str) -> None:
    for variant in (text, text.upper(), f"  {text.lower()} \0"):
        assert holds(Operator.ONE_OF, text, variant)
        assert holds(Operator.CONTAINS, text, f"before {variant.strip()} after") or text.strip() != text
        assert holds(Operator.MATCHES, text.strip(), variant)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_bounds_include_themselves_and_read_numbers_sent_as_text(bound: float, value: float) -> None:
    assert holds(Operator.AT_LEAST, bound, repr(value)) == (value >= bound)
    assert holds(Operator.AT_MOST, bound, value) == (value <= bound)


@given(st.sampled_from(Operator), operands)
def test_an_absent_value_meets_only_not_and_exists_false(operator: Operator, wanted: Values) -> None:
    met = holds(operator, wanted)
    assert met == (operator is Operator.NOT or (operator is Operator.EXISTS and wanted[0] in (False,)))


def test_several_values_one_has_to_match_and_every_one_has_to_lie_within_bounds() -> None:
    assert holds(Operator.ONE_OF, "LOCALIZER", "ORIGINAL", "PRIMARY", "LOCALIZER")
    assert not holds(Operator.NOT, "LOCALIZER", "ORIGINAL", "PRIMARY", "LOCALIZER")
    assert not holds(Operator.AT_MOST, 1, 0.5, 2)
    assert holds(Operator.AT_MOST, 1, 0.5, 1)


def test_a_pattern_is_a_glob_and_no_regular_expression() -> None:
    assert holds(Operator.MATCHES, "CT*thorax?", "ct lung THORAX1")
    assert not holds(Operator.MATCHES, "CT.*", "CT lung")
    assert not holds(Operator.MATCHES, "(a+)+$", "a" * 64)


def test_an_address_lies_in_a_network_and_what_is_none_in_no_network() -> None:
    assert holds(Operator.WITHIN, "10.1.0.0/16", "10.1.2.3")
    assert holds(Operator.WITHIN, ("10.9.0.0/16", "10.1.2.3"), "10.1.2.3")
    assert holds(Operator.WITHIN, "fd00::/8", "fd12::1")
    assert not holds(Operator.WITHIN, "10.1.0.0/16", "10.2.0.1")
    assert not holds(Operator.WITHIN, "10.1.0.0/16", "fd12::1")
    assert not holds(Operator.WITHIN, "10.1.0.0/16", "gateway.hospital.example")


def test_numbers_and_texts_mean_the_same_number_but_identifiers_keep_their_zeros() -> None:
    assert holds(Operator.ONE_OF, 120, "120.0")
    assert not holds(Operator.ONE_OF, "007", "7")
    assert not holds(Operator.ONE_OF, True, 1)


def test_the_reasons_read_as_an_administrator_would_say_them() -> None:
    chest = rule(
        Condition("Modality", Operator.ONE_OF, ("CT", "PT")),
        Condition("slices", Operator.AT_LEAST, (20,)),
        Condition("SeriesDescription", Operator.NOT, ("scout",)),
        Condition("ContrastBolusAgent", Operator.EXISTS, (False,)),
        Condition("complete", Operator.ONE_OF, (True,)),
        Condition("StationName", Operator.MATCHES, ("CT?",)),
    )
    match = match_rule(chest, {"Modality": ("CT",), "slices": (3,), "complete": (False,)})
    assert [str(reason) for reason in match.reasons] == [
        "Modality is CT or PT: yes",
        "slices at least 20: no, 3",
        "SeriesDescription is not scout: yes",
        "ContrastBolusAgent is absent: yes",
        "complete is true: no, false",
        "StationName matches CT?: no, not present",
    ]
    assert str(match) == (
        "rule chest did not match: slices at least 20: no, 3; complete is true: no, false; "
        "StationName matches CT?: no, not present"
    )


def test_long_values_are_cut_in_the_reasons() -> None:
    match = match_rule(rule(Condition("ProtocolName", Operator.ONE_OF, ("x",))), {"ProtocolName": ("y" * 1000,)})
    assert len(str(match)) < 160


def test_a_series_is_asked_about_every_role_and_needs_the_conditions_of_all_series_too() -> None:
    mr, plain, flair = (
        Condition("Modality", Operator.ONE_OF, ("MR",)),
        Condition("SeriesDescription", Operator.CONTAINS, ("t1",)),
        Condition("SeriesDescription", Operator.CONTAINS, ("flair",)),
    )
    brats = Rule("brats", "brats", ("pacs",), (mr,), inputs=(Role("T1", (plain,)), Role("FLAIR", (flair,))))
    assert brats.keys == {"Modality", "SeriesDescription"}
    match = match_rule(brats, {"Modality": ("MR",), "SeriesDescription": ("T1 mprage",)})
    assert (match.matched, match.roles) == (True, ("T1",))
    assert str(match) == "rule brats matched as T1: Modality is MR: yes; T1: SeriesDescription contains t1: yes"
    match = match_rule(brats, {"Modality": ("MR",), "SeriesDescription": ("dwi",)})
    assert (match.matched, match.roles) == (False, ())
    assert "T1: SeriesDescription contains t1: no, dwi; FLAIR: SeriesDescription contains flair: no, dwi" in str(match)
    assert not match_rule(brats, {"Modality": ("CT",), "SeriesDescription": ("t1 flair",)}).matched
