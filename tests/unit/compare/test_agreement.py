"""How far two answers agree, on masks that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.compare.agreement import Marked, Mask, agree, dice, marked, summarise


def mask(*rows: str, image: str = "1.2.3") -> Mask:
    return {image: np.packbits(np.array([[c == "x" for c in row] for row in rows]))}


def lung(drawn: Mask, ml: float | None = 1.0) -> Marked:
    return Marked("Left lung", False, ml, drawn)


def nodule(drawn: Mask, ml: float | None = 1.0) -> Marked:
    return Marked("Nodule", True, ml, drawn)


def test_dice_is_of_all_images_together() -> None:
    a = {**mask("xx..", image="1"), **mask("xxxx", image="2")}
    b = {**mask(".xx.", image="1"), **mask("x...", image="3")}
    assert dice(a, b) == pytest.approx(2 * 1 / (6 + 3))
    assert dice({}, {}) == 1.0
    assert dice(a, {}) == 0.0


def test_structures_are_compared_by_label_and_a_missing_one_counts() -> None:
    right = Marked("Right lung", False, 4.0, mask("x..."))
    found = agree([lung(mask("xx..")), right], [lung(mask("xxx."), 3.0)])
    assert {m.label: m.dice for m in found.matches} == {"Left lung": pytest.approx(0.8), "Right lung": 0.0}
    assert found.worst == 0.0
    assert agree([], []).worst == 1.0
    assert not found.is_silent


def test_two_that_marked_nothing_are_told_from_two_that_agree() -> None:
    empty = mask("....")
    assert agree([], []).is_silent
    assert agree([lung(empty, 0.0)], [lung({}, 0.0)]).is_silent
    assert not agree([lung(empty, 0.0)], [lung(mask("x..."))]).is_silent
    assert not agree([nodule({})], []).is_silent  # a box on a single image has no voxels


def test_findings_are_matched_once_the_most_overlap_first() -> None:
    first = [nodule(mask("xx......")), nodule(mask("..xx....")), nodule(mask(".......x"))]
    second = [nodule(mask(".xxx....")), nodule(mask("x......."))]
    found = agree(first, second)
    assert [m.dice for m in found.matches] == [pytest.approx(4 / 5), pytest.approx(2 / 3)]
    assert (found.only_first, found.only_second) == (("Nodule",), ())
    assert agree([nodule(mask("x."))], [nodule(mask(".x"))]).only_second == ("Nodule",)


def test_the_summary_holds_limits_of_agreement() -> None:
    pairs = [agree([lung(mask("x"), 10.0)], [lung(mask("x"), 10.0 + change)]) for change in (1.0, 2.0, 3.0)]
    alone = agree([nodule(mask("x"))], [])
    structure, finding = summarise([*pairs, alone])
    assert (structure.label, structure.dice, structure.differences_ml) == ("Left lung", [1.0] * 3, [1.0, 2.0, 3.0])
    assert structure.limits_ml is not None
    assert list(structure.limits_ml) == pytest.approx([2.0, 2.0 - 1.96, 2.0 + 1.96])
    assert (finding.label, finding.only_first, finding.only_second, finding.limits_ml) == ("Nodule", 1, 0, None)


def test_what_a_summary_says_is_joined_with_the_voxels_by_number() -> None:
    said = [
        {"label": "Left lung", "number": 1, "volume_ml": 5.0},
        {"label": "Nodule 1", "number": 3, "volume_ml": 0.1, "detected": "Nodule", "score": 0.9},
    ]
    left, found = marked(said, {1: mask("x"), 2: mask("xx")})
    assert (left.label, left.is_finding, left.volume_ml, bool(left.mask)) == ("Left lung", False, 5.0, True)
    assert (found.label, found.is_finding, bool(found.mask)) == ("Nodule", True, False)
