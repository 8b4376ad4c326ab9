"""Volumes whose slices lie between each other: each a grid of its own, and all of them together one that never was.

Two acquisitions half a step apart share no place, and look like one volume of half the step. They are told by an
attribute that has one value in every other slice and another in those between, or by the order in which slices were
made or counted, which passes through the body twice.

MR is measured that way on purpose: first every other slice, then those between, so that neighbours do not disturb each
other. Such slices do not overlap, and only the acquisition and its times tell them apart; they stay one volume.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from dicom_node.domain.geometry import FEWEST_SLICES
from dicom_node.domain.header import numbers, texts
from dicom_node.domain.volumes import PASSING, RANKED, TELLS_APART, Part, Way, by_number, range_of, value_of
from dicom_node.errors import GeometryError

if TYPE_CHECKING:
    from dicom_node.domain.study import Slice

_OF_AN_ACQUISITION = ("AcquisitionNumber", *RANKED)
_OVERLAP = 1.25  # of the step: thicker slices of MR than this were not measured in turns
_UNEVEN = 0.25


def ways_between(whole: Part, place_mm: Mapping[str, float]) -> Iterator[Way]:
    """Ways to split slices of which no two share a place; whether their parts are interleaved is for others to say.

    Parameters
    ----------
    place_mm : mapping of str to float
        Where each slice lies along the normal, by its key.
    """
    slices = sorted(whole.slices, key=lambda one: place_mm[one.key])
    if len(slices) < 2 * FEWEST_SLICES:
        return
    in_turns = whole.refusal is None and _may_be_in_turns(slices, place_mm)
    for keyword in TELLS_APART:
        first = slices[0].header.get(keyword)
        if all(one.header.get(keyword) == first for one in slices):  # as most attributes are
            continue
        if in_turns and keyword in _OF_AN_ACQUISITION:
            continue
        groups = _by_value(slices, keyword)
        if _could_be_volumes(list(groups.values())):
            yield Way(keyword, sorted(groups.items(), key=by_number), passes=keyword in PASSING)
        for down in (False, True) if keyword in RANKED else ():
            sweeps = _sweeps(slices[::-1] if down else slices, keyword, place_mm)
            if _could_be_volumes([some for _, some in sweeps]):
                yield Way(keyword, sweeps, passes=True)


def are_interleaved(parts: Sequence[Part], place_mm: Mapping[str, float]) -> bool:
    """Whether slices of one volume lie between those of another, and most slices in a volume: less may be chance."""
    volumes = [part.slices for part in parts if part.refusal is None]
    if 2 * sum(map(len, volumes)) <= sum(len(part.slices) for part in parts):
        return False
    ends = [(min(at_mm), max(at_mm)) for some in volumes for at_mm in [[place_mm[one.key] for one in some]]]
    furthest = -math.inf
    for first, last in sorted(ends):
        if first < furthest:
            return True
        furthest = max(furthest, last)
    return False


def check_numbers(ordered: Sequence[Slice]) -> None:
    """Refuse slices that are counted twice, once in every other of them and once in those between.

    Parameters
    ----------
    ordered : sequence of Slice
        Of one regular grid, along its normal.

    Raises
    ------
    GeometryError
        With the numbers.
    """
    found = [number for one in ordered if not one.frame for number in numbers(one.header, "InstanceNumber", 1)]
    times = Counter(found)
    most = max(times.values(), default=1)
    if most < 2 or len(found) < len(ordered) or sum(n > 1 for n in times.values()) < FEWEST_SLICES:
        return
    if all(_is_monotonic(found[k::most]) for k in range(most)):
        raise GeometryError(
            f"Several volumes in one series: its slices lie at even steps, but InstanceNumber counts them {most} times "
            f"from {min(found):g} to {max(found):g}, in turns, and no attribute tells them apart."
        )


def _may_be_in_turns(ordered: Sequence[Slice], place_mm: Mapping[str, float]) -> bool:
    """Whether slices may be one acquisition of MR that was measured in turns."""
    header = ordered[0].header
    thickness = numbers(header, "SliceThickness", 1)
    step = (place_mm[ordered[-1].key] - place_mm[ordered[0].key]) / (len(ordered) - 1)
    return texts(header, "Modality") == ("MR",) and bool(thickness) and 0 < thickness[0] <= _OVERLAP * step


def _by_value(slices: Sequence[Slice], keyword: str) -> dict[str, list[Slice]]:
    groups: dict[str, list[Slice]] = {}
    for one in slices:
        groups.setdefault(value_of(one, keyword), []).append(one)
    return groups


def _sweeps(slices: Sequence[Slice], keyword: str, place_mm: Mapping[str, float]) -> list[tuple[str, list[Slice]]]:
    """Slices in the order of a number, cut wherever the next lies elsewhere than steps until then would have it."""
    found = [(number, one) for one in slices for number in numbers(one.header, keyword, 1)]
    if len(found) < len(slices):
        return []
    found.sort(key=lambda pair: pair[0])  # those of one number stay as they are
    sweeps = [[found[0]]]
    step: float | None = None
    for (_, before), after in pairwise(found):
        moved = place_mm[after[1].key] - place_mm[before.key]
        if step is None or abs(moved - step) <= _UNEVEN * abs(step):
            sweeps[-1].append(after)
            step = moved if step is None else step
        else:
            sweeps.append([after])
            step = None
    return [(range_of(lot[0][0], lot[-1][0]), [one for _, one in lot]) for lot in sweeps]


def _could_be_volumes(groups: Sequence[Sequence[Slice]]) -> bool:
    return sum(len(group) >= FEWEST_SLICES for group in groups) > 1


def _is_monotonic(values: Sequence[float]) -> bool:
    up = [after > before for before, after in pairwise(values)]
    return len(values) >= FEWEST_SLICES and (all(up) or not any(after >= before for before, after in pairwise(values)))
