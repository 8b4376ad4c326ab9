"""Several volumes in one series: split by what tells them apart, and one taken as a card says, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.study import Slice, Verdict, chosen, examine
from dicom_node.domain.volumes import TELLS_APART, Choice
from tests.unit.domain.headers import instances, stack


def found(*stacks: Sequence[dict[str, Any]]) -> Verdict:
    return examine(instances([header for one in stacks for header in one]))


def told(verdict: Verdict) -> list[dict[str, str]]:
    return [dict(part.told) for part in verdict.parts]


def numbers_of(verdict: Verdict) -> set[int]:
    return {int(uid.rpartition(".")[2]) for uid in verdict.slices}


VALUES: Mapping[str, tuple[Any, Any]] = {
    "EchoNumbers": ("1", "2"),
    "EchoTime": ("4.6", "9.2"),
    "InversionTime": ("100", "900"),
    "DiffusionBValue": (0.0, 1000.0),
    "DiffusionDirectionality": ("DIRECTIONAL", "NONE"),
    "DiffusionGradientOrientation": ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
    "TemporalPositionIdentifier": ("1", "2"),
    "NominalPercentageOfCardiacPhase": (40.0, 75.0),
    "TriggerTime": ("0", "330"),
    "AcquisitionNumber": ("1", "2"),
    "ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
    "ConvolutionKernel": ("B30f", "B70f"),
    "KVP": ("80", "140"),
    "ContrastBolusAgent": (None, "Iomeprol"),
    "SliceThickness": ("1", "5"),
    "AcquisitionTime": ("101500.5", "101530.25"),
    "ContentTime": ("101500", "101530"),
    "StackID": ("1", "2"),
}


@pytest.mark.parametrize("keyword", VALUES)
def test_each_attribute_splits_two_volumes_and_chooses_one(keyword: str) -> None:
    first, second = VALUES[keyword]
    verdict = found(stack(5, **{keyword: first}), stack(5, **{keyword: second}))
    assert verdict.refusal is not None
    assert [list(one) for one in told(verdict)] == [[keyword]] * 2
    word = second[-1] if keyword == "ImageType" else second
    if not isinstance(word, list):
        taken = chosen(verdict, {keyword: word if keyword in ("ImageType", "StackID") else _number(word)})
        assert taken.refusal is None
        assert numbers_of(taken) == {6, 7, 8, 9, 10}
        assert taken.facts["volume"] == told(verdict)[1]
        assert taken.facts["slices"] == 5
    for wanted, uids in (("first", {1, 2, 3, 4, 5}), ("last", {6, 7, 8, 9, 10})):
        if isinstance(_number(first), float):
            assert numbers_of(chosen(verdict, {keyword: wanted})) == uids


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def test_every_attribute_is_tried() -> None:
    assert {*VALUES, "InstanceNumber"} == set(TELLS_APART)


def test_without_a_choice_the_refusal_lists_the_volumes_and_says_how_to_choose() -> None:
    verdict = found(stack(5, EchoNumbers="1", EchoTime="4.60"), stack(5, EchoNumbers="2", EchoTime="9.20"))
    assert verdict.refusal == (
        "Several volumes in one series: EchoNumbers 1 (5 slices); EchoNumbers 2 (5 slices). "
        "[volume] on the model's card takes one, as EchoNumbers = 1."
    )
    assert chosen(verdict, {}) is verdict
    by_time = chosen(verdict, {"EchoTime": 9.199})
    assert numbers_of(by_time) == {6, 7, 8, 9, 10}, "what did not name the volumes chooses as well"


def test_attributes_split_one_after_the_other() -> None:
    headers = [
        stack(5, DiffusionBValue=0.0),
        stack(5, DiffusionBValue=1000.0, DiffusionGradientOrientation=[1.0, 0.0, 0.0]),
        stack(5, DiffusionBValue=1000.0, DiffusionGradientOrientation=[0.0, 1.0, 0.0]),
    ]
    verdict = found(*headers)
    assert told(verdict) == [
        {"DiffusionBValue": "0"},
        {"DiffusionBValue": "1000", "DiffusionGradientOrientation": "0\\1\\0"},
        {"DiffusionBValue": "1000", "DiffusionGradientOrientation": "1\\0\\0"},
    ]
    assert numbers_of(chosen(verdict, {"DiffusionBValue": "first"})) == {1, 2, 3, 4, 5}
    both = chosen(verdict, {"DiffusionBValue": 1000.0}).refusal
    assert both is not None
    assert "does not tell them apart" in both
    assert "0\\1\\0 (5 slices); " in both
    one = chosen(verdict, {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": "1\\0\\0"})
    assert numbers_of(one) == {6, 7, 8, 9, 10}


def test_a_volume_is_taken_although_others_are_none() -> None:
    late = stack(5, EchoNumbers="2")
    del late[2]
    verdict = found(stack(5, EchoNumbers="1"), late)
    assert "EchoNumbers 2 (4 slices, no volume)" in str(verdict.refusal)
    assert verdict.lacks_slices, "it may still come"
    assert chosen(verdict, {"EchoNumbers": 1.0}).refusal is None
    assert "EchoNumbers 2 (4 slices, no volume): A gap: 5 mm" in str(chosen(verdict, {"EchoNumbers": 2.0}).refusal)


def test_repeats_of_one_volume_leave_the_others_to_be_chosen() -> None:
    verdict = found(stack(5, DiffusionBValue=0.0), stack(5, DiffusionBValue=800.0), stack(5, DiffusionBValue=800.0))
    assert numbers_of(chosen(verdict, {"DiffusionBValue": 0.0})) == {1, 2, 3, 4, 5}
    assert "no attribute tells them apart" in str(chosen(verdict, {"DiffusionBValue": 800.0}).refusal)


@given(st.randoms(), st.integers(2, 6))
def test_time_points_whose_times_pass_from_slice_to_slice_are_told_by_their_ranges(random: Random, points: int) -> None:
    headers = [
        one | {"TriggerTime": str(1000 * point + 10 * k), "InstanceNumber": "1"}
        for point in range(points)
        for k, one in enumerate(stack(4))
    ]
    series = instances(headers)
    random.shuffle(series)
    verdict = examine(series)
    assert told(verdict) == [{"TriggerTime": f"{1000 * n} to {1000 * n + 30}"} for n in range(points)]
    for wanted, point in (("first", 0), ("last", points - 1), (1015.0, 1)):
        taken = numbers_of(chosen(verdict, {"TriggerTime": wanted}))
        assert taken == {4 * point + k for k in (1, 2, 3, 4)}


def test_times_that_run_through_each_other_tell_nothing() -> None:
    headers = [one | {"TriggerTime": str(10 * k + 25 * n)} for n in range(2) for k, one in enumerate(stack(8))]
    assert not found([one | {"InstanceNumber": "1"} for one in headers]).parts


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"EchoNumbers": 2.0}, None),
        ({"EchoNumbers": "first"}, None),
        ({"DiffusionBValue": 0.0}, None),
        ({"EchoNumbers": 1.0}, "No volume with EchoNumbers 1: the series has 2."),
        ({"ImageType": "P"}, "No volume with ImageType P: the series has ORIGINAL\\PRIMARY\\AXIAL."),
    ],
)
def test_one_volume_is_taken_unless_it_contradicts_the_choice(choice: Choice, reason: str | None) -> None:
    assert chosen(found(stack(5, EchoNumbers="2")), choice).refusal == reason


def test_a_series_that_is_refused_stays_so_whatever_is_chosen() -> None:
    gap = stack(8)
    del gap[3]
    verdict = found(gap)
    assert chosen(verdict, {"EchoNumbers": 1.0}) is verdict


def test_slices_that_nothing_tells_apart_are_named_as_twins() -> None:
    headers = stack(5)
    verdict = found(headers, [headers[2] | {"InstanceNumber": "9", "ContentTime": "101500"}])
    assert verdict.twins == (("1.9.3", "1.9.6"),)
    assert "no attribute tells them apart" in str(verdict.refusal)
    again = examine(instances([*headers, headers[2]]), copies={"1.9.6": "a copy"})
    assert again.refusal is None
    assert again.set_aside == (("1.9.6", "a copy"),)
    assert numbers_of(again) == {1, 2, 3, 4, 5}


def test_a_series_of_endless_differences_ends() -> None:
    random = Random(5)
    headers = [
        one | {keyword: str(random.randrange(40)) for keyword in TELLS_APART} for _ in range(60) for one in stack(20)
    ]
    assert examine([Slice(f"1.{n}", one) for n, one in enumerate(headers)]).refusal is not None
