"""Split the slices of a series into volumes, attribute by attribute, until each part is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from dicom_node.domain.header import numbers
from dicom_node.domain.interleaved import are_interleaved, ways_between
from dicom_node.domain.volumes import PASSING, RANKED, TELLS_APART, Part, Way, Why, by_number, few, range_of, value_of

if TYPE_CHECKING:
    from dicom_node.domain.study import Slice

_DEEPEST = 4
_MOST_TRIED = 200  # ways to split: a hostile series has no end of them


def split(whole: Part, place_mm: Mapping[str, float], why: Why) -> list[Part]:
    """Split slices into volumes, as far as their headers tell them apart.

    Parameters
    ----------
    place_mm : mapping of str to float
        Where each slice lies along the normal, by its key; slices at one place have the same number.
    why : callable
        Says why slices are no volume; None when they are one.

    Returns
    -------
    list of Part
        The whole alone when nothing tells volumes apart. Otherwise the split that leaves most slices in volumes, in the
        order of their values; some of its parts may be none.
    """
    return _Splitter(place_mm, why).parts(whole)


def told_apart(slices: Sequence[Slice], place_mm: Mapping[str, float], why: Why) -> str:
    """Say what tells slices at one place apart although none of the parts is a volume; empty where nothing does."""
    way = _Splitter(place_mm, why).told_apart(slices)
    if way is None:
        return ""
    values = few([value for value, _ in way.groups])
    return (
        f"told apart by {way.keyword} ({values}), and none of them is a volume, as the first: {why(way.groups[0][1])}"
    )


class _Splitter:
    def __init__(self, place_mm: Mapping[str, float], why: Why) -> None:
        self._place_mm, self._why = place_mm, why
        self._tried = 0

    def parts(self, whole: Part) -> list[Part]:
        best = [whole]
        if len(whole.told) == _DEEPEST:
            return best
        apart = self._are_apart(whole.slices)
        for way in ways_between(whole, self._place_mm) if apart else self._ways(whole.slices):
            self._tried += 1
            if self._tried > _MOST_TRIED:
                break
            parts = [one for part in way.parts(whole, self._why) for one in self.parts(part)]
            if apart:
                if are_interleaved(parts, self._place_mm):
                    return parts
            elif all(one.refusal is None for one in parts):
                return parts
            else:
                best = max(best, parts, key=_in_volumes)
        return best

    def told_apart(self, slices: Sequence[Slice]) -> Way | None:
        """The first way that leaves no two slices at one place together."""
        ways = (way for way in self._ways(slices) if all(self._are_apart(some) for _, some in way.groups))
        return next(ways, None)

    def _are_apart(self, slices: Sequence[Slice]) -> bool:
        return len({self._place_mm[one.key] for one in slices}) == len(slices)

    def _ways(self, slices: Sequence[Slice]) -> Iterator[Way]:
        for keyword in TELLS_APART:
            groups: dict[str, list[Slice]] = {}
            for one in slices if keyword not in PASSING else ():
                groups.setdefault(value_of(one, keyword), []).append(one)
            if len(groups) > 1 and self._tells(groups.values()):
                yield Way(keyword, sorted(groups.items(), key=by_number))
            if keyword in RANKED and (ranks := self._ranked(slices, keyword)):
                yield Way(keyword, ranks, passes=True)

    def _tells(self, groups: Iterable[Sequence[Slice]]) -> bool:
        """Whether slices of one place are in different groups."""
        places = [{self._place_mm[one.key] for one in group} for group in groups]
        return sum(map(len, places)) > len(set().union(*places))

    def _ranked(self, slices: Sequence[Slice], keyword: str) -> list[tuple[str, list[Slice]]]:
        """The first at each place, the second, ...: where all places have as many, and one lot ends before the next."""
        at: dict[float, list[tuple[float, Slice]]] = {}
        for one in slices:
            if not (number := numbers(one.header, keyword, 1)):
                return []
            at.setdefault(self._place_mm[one.key], []).append((number[0], one))
        if len({len(some) for some in at.values()}) != 1:
            return []
        lots = list(zip(*(sorted(some, key=lambda one: one[0]) for some in at.values()), strict=True))
        ends = [(min(number for number, _ in lot), max(number for number, _ in lot)) for lot in lots]
        if any(last >= first for (_, last), (first, _) in pairwise(ends)):
            return []
        return [(range_of(*end), [one for _, one in lot]) for end, lot in zip(ends, lots, strict=True)]


def _in_volumes(parts: Sequence[Part]) -> int:
    return sum(len(part.slices) for part in parts if part.refusal is None)
