"""Volumes whose slices lie between each other are told apart, or refused; one volume measured in turns stays one."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.study import chosen, examine
from dicom_node.domain.volumes import TELLS_APART
from tests.unit.domain.headers import OBLIQUE, header, instances, stack
from tests.unit.domain.test_volumes import VALUES, numbers_of, told

FIRST, SECOND = set(range(1, 11)), set(range(11, 20))


def two(first: dict[str, Any], second: dict[str, Any], *, offset: float = 0.5) -> list[dict[str, Any]]:
    """Two grids of 2 mm in one series: the slices of the second lie between those of the first."""
    lower = [header((0, 0, 2 * k), InstanceNumber=str(k + 1), **first) for k in range(10)]
    upper = [header((0, 0, 2 * (k + offset)), InstanceNumber=str(k + 11), **second) for k in range(9)]
    return lower + upper


@pytest.mark.parametrize("offset", [0.5, 0.3])
@pytest.mark.parametrize("keyword", VALUES)
def test_each_attribute_tells_interleaved_volumes_apart_and_chooses_one(keyword: str, offset: float) -> None:
    first, second = VALUES[keyword]
    verdict = examine(instances(two({keyword: first}, {keyword: second}, offset=offset)))
    assert [list(one) for one in told(verdict)] == [[keyword]] * 2
    assert "Several volumes in one series" in str(verdict.refusal)
    names = {keyword: dict(verdict.parts[0].told)[keyword]}
    wanted = names if not names[keyword].replace(".", "").isdigit() else {keyword: float(names[keyword])}
    taken = chosen(verdict, wanted)
    assert taken.refusal is None
    assert numbers_of(taken) in (FIRST, SECOND)
    assert taken.facts["slice_spacing_mm"] == 2


def test_every_attribute_is_tried() -> None:
    assert {*VALUES, "InstanceNumber"} == set(TELLS_APART)


@pytest.mark.parametrize("keyword", ["InstanceNumber", "AcquisitionTime", "ContentTime", "TriggerTime"])
@pytest.mark.parametrize("down", [False, True])
@given(random=st.randoms())
def test_the_order_in_which_slices_were_made_tells_them_apart(keyword: str, down: bool, random: Random) -> None:
    headers = two({}, {})
    for k, one in enumerate(headers):
        of_second = k - 10 if not down else 18 - k
        one["InstanceNumber"] = "1"
        one[keyword] = str(101500 + 2 * (k if k < 10 else 10 + of_second))
    series = instances(headers)
    random.shuffle(series)
    verdict = examine(series)
    assert told(verdict) == [{keyword: "101500 to 101518"}, {keyword: "101520 to 101536"}]
    assert f"as {keyword} = 101500." in str(verdict.refusal)
    assert numbers_of(chosen(verdict, {keyword: "last"})) == SECOND
    assert numbers_of(chosen(verdict, {keyword: 101502.0})) == FIRST


def test_three_volumes_and_two_attributes() -> None:
    grids = [
        header((0, 0, 3 * k + n), AcquisitionNumber=str(1 + n // 2), ConvolutionKernel="B30f" if n else "B70f")
        for n in range(3)
        for k in range(5)
    ]
    verdict = examine(instances(grids))
    assert told(verdict) == [
        {"AcquisitionNumber": "1", "ConvolutionKernel": "B30f"},
        {"AcquisitionNumber": "1", "ConvolutionKernel": "B70f"},
        {"AcquisitionNumber": "2"},
    ]


def test_slices_that_are_counted_in_turns_are_refused_where_nothing_tells_them_apart() -> None:
    headers = two({}, {})
    for k, one in enumerate(headers):
        one["InstanceNumber"] = str(1 + k % 10)
    assert examine(instances(headers)).refusal == (
        "Several volumes in one series: its slices lie at even steps, but InstanceNumber counts them 2 times from 1 to "
        "10, in turns, and no attribute tells them apart."
    )
    for k, one in enumerate(headers[10:]):
        one["InstanceNumber"] = str(10 - k)
    assert "no attribute tells them apart" in str(examine(instances(headers)).refusal)
    told_by_time = [one | {"ContentTime": "101500" if k < 10 else "101700"} for k, one in enumerate(headers)]
    assert [list(one) for one in told(examine(instances(told_by_time)))] == [["ContentTime"]] * 2


def in_turns(**changes: Any) -> list[dict[str, Any]]:
    """One acquisition of MR: every other slice first, then those between."""
    turns = stack(21, 5.0, OBLIQUE, Modality="MR", **changes)
    for k, one in enumerate(turns):
        one |= {"AcquisitionTime": f"1015{k % 2 * 20 + k // 2:02d}", "AcquisitionNumber": str(1 + k % 2)}
    return turns


def test_slices_of_mr_that_were_measured_in_turns_are_one_volume() -> None:
    verdict = examine(instances(in_turns(SliceThickness="4")))
    assert verdict.refusal is None
    assert verdict.facts["slices"] == 21
    assert "Several volumes" in str(examine(instances(in_turns(SliceThickness="10"))).refusal), "they overlap"
    assert "Several volumes" in str(examine(instances(in_turns())).refusal), "nothing says that they do not"
    of_ct = [one | {"Modality": "CT"} for one in in_turns(SliceThickness="4")]
    assert "Several volumes" in str(examine(instances(of_ct)).refusal), "a table does not go twice for one volume"
    echoes = [one | {"EchoTime": str(4 + k % 2)} for k, one in enumerate(in_turns(SliceThickness="4"))]
    assert "EchoTime 4 (11 slices); EchoTime 5 (10 slices)" in str(examine(instances(echoes)).refusal)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", [k // 10 for k in range(20)]),  # two stations of the table
        ("AcquisitionNumber", [k // 2 for k in range(20)]),  # two rows of the detector in each rotation
        ("AcquisitionTime", [101500 + k // 4 for k in range(20)]),
        ("AcquisitionTime", [101600 - k // 4 for k in range(20)]),
        ("InstanceNumber", [20 - k for k in range(20)]),
        ("InstanceNumber", [1] * 20),
        ("InstanceNumber", [sorted(map(str, range(1, 21))).index(str(k)) for k in range(1, 21)]),  # by name of file
        ("InstanceNumber", [1 + k % 10 for k in range(20)]),  # counted anew in the upper half
        ("InstanceNumber", [k + (k < 10) for k in range(20)]),  # one number twice
        ("ContrastBolusAgent", ["Iomeprol" if k % 5 else None for k in range(20)]),
        ("SliceThickness", [("2.5", "2.499")[(k * k) % 3 % 2] for k in range(20)]),
        ("KVP", [120 if k < 8 else 100 for k in range(20)]),
    ],
)
def test_what_differs_among_the_slices_of_one_volume_leaves_it_one(keyword: str, values: list[Any]) -> None:
    headers = [one | {keyword: value} for one, value in zip(stack(20), values, strict=True)]
    verdict = examine(instances(headers))
    assert verdict.refusal is None
    assert len(verdict.slices) == 20


@pytest.mark.parametrize("keyword", ["InstanceNumber", "AcquisitionTime"])
def test_numbers_without_any_order_leave_a_volume_one(keyword: str) -> None:
    headers, random = stack(40), Random(3)
    for _ in range(100):
        order = random.sample(range(40), 40)
        series = [one | {keyword: str(number)} for one, number in zip(headers, order, strict=True)]
        assert examine(instances(series)).refusal is None


def test_a_gap_in_one_volume_stays_a_gap() -> None:
    headers = [one | {"AcquisitionNumber": str(k // 10)} for k, one in enumerate(stack(20))]
    del headers[13]
    verdict = examine(instances(headers))
    assert verdict.lacks_slices
    assert "A gap: 5 mm" in str(verdict.refusal)
