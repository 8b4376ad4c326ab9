"""Which series fills which role: stated, and independent of the order in which series come."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.candidate import Candidate, choose
from dicom_node.domain.rule import Preference, Role

T1, T2 = Role("T1", ()), Role("T2", ())


def one(series: str, role: str = "T1", *, mm: float | None = 1.0, slices: int = 20, at: str = "") -> Candidate:
    return Candidate(series, series, 1, role, tuple(map(str, range(slices))), mm, at, 10)


def chosen(roles: list[Role], *candidates: Candidate) -> dict[str, str]:
    return {role: found.series_id for role, found in choose(roles, candidates).items()}


def test_the_thinnest_then_the_longest_then_the_newest_is_preferred() -> None:
    thick, few = one("1", mm=5.0, slices=90, at="20260101"), one("2", slices=10)
    old, new = one("3", at="20260101100000"), one("4", at="20260101100000.5")
    undated = one("5")
    for order in permutations([thick, few, old, new, undated]):
        assert chosen([T1], *order) == {"T1": "4"}
    assert chosen([T1], thick, few) == {"T1": "2"}
    assert chosen([T1], few, old, undated) == {"T1": "3"}


def test_a_role_says_what_it_prefers() -> None:
    thick, old, new = one("1", mm=5.0, slices=90), one("2", at="2026"), one("3", at="2027")
    assert chosen([replace(T1, prefer=(Preference.MOST_SLICES,))], thick, old) == {"T1": "1"}
    assert chosen([replace(T1, prefer=(Preference.OLDEST,))], thick, old, new) == {"T1": "2"}
    assert chosen([replace(T1, prefer=(Preference.NEWEST,))], old, new) == {"T1": "3"}


def test_a_refused_series_fills_nothing() -> None:
    assert chosen([T1], replace(one("1"), refusal="a gap")) == {}


def test_an_earlier_role_gives_way_only_where_a_later_one_would_stay_empty() -> None:
    both = [one("1", mm=1.0), one("1", "T2", mm=1.0)]
    assert chosen([T1, T2], *both) == {"T1": "1"}
    assert chosen([T1, T2], *both, one("2", mm=3.0)) == {"T1": "2", "T2": "1"}
    assert chosen([T1, T2], *both, one("2", "T2", mm=3.0)) == {"T1": "1", "T2": "2"}
    assert chosen([T1, T2], *both, one("2", mm=3.0), one("3", "T2", mm=9.0)) == {"T1": "1", "T2": "3"}


ROLES = [Role(name, ()) for name in "ABC"]
SOME = st.lists(
    st.builds(one, st.sampled_from("123456"), st.sampled_from("ABC"), mm=st.sampled_from([1.0, 2.0])),
    max_size=10,
    unique_by=lambda each: (each.series_id, each.role),
)


@given(SOME, st.randoms())
def test_as_many_roles_are_filled_as_can_be_each_by_a_series_of_its_own_in_any_order(
    candidates: list[Candidate], chance: Random
) -> None:
    found = chosen(ROLES, *candidates)
    assert len({*found.values()}) == len(found)
    pairs = {(each.role, each.series_id) for each in candidates}
    assert pairs >= {*found.items()}
    most = max(
        sum((role, series) in pairs for role, series in zip("ABC", way, strict=True))
        for way in permutations("123456", 3)
    )
    assert len(found) == most
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert chosen(ROLES, *shuffled) == found
