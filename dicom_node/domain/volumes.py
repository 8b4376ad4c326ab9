"""Several volumes in one series: which attributes tell them apart, and which of them a model's card takes.

Slices that share a place belong to different volumes: echoes, b-values, time points, phases, kernels. They are split by
what their headers say, attribute by attribute, until each part is one volume. Nothing is guessed: a card names the
volume that it takes, or the series is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from dicom_node.domain.geometry import count
from dicom_node.domain.header import numbers, texts

if TYPE_CHECKING:
    from dicom_node.domain.study import Slice

# What may tell volumes apart, in the order in which it is tried. The last ones say only when an image was made, or
# which it was: they tell apart what nothing else does, as the time points of functional MR.
TELLS_APART = (
    "StackID",
    "EchoNumbers",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "DiffusionGradientOrientation",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "AcquisitionNumber",
    "ImageType",
    "ConvolutionKernel",
    "KVP",
    "ContrastBolusAgent",
    "SliceThickness",
    "AcquisitionTime",
    "ContentTime",
    "InstanceNumber",
)
FIRST, LAST, NONE = "first", "last", "none"
PASSING = ("AcquisitionTime", "ContentTime", "InstanceNumber")  # differ from slice to slice in any case
_RANKED = ("TriggerTime", *PASSING)
_DEEPEST = 4
_MOST_TRIED = 200  # ways to split: a hostile series has no end of them
_MOST_TOLD, _LONGEST_TOLD = 6, 64
_NUMBER, _MOST_OFF = 1e-3, 0.05  # of the value, and at most: an echo time of 4.598 ms is the one of 4.6

Wanted = float | str
Choice = Mapping[str, Wanted]  # by the keyword of an attribute: its value, or FIRST, LAST, NONE
Why = Callable[[Sequence["Slice"]], str | None]


@dataclass(frozen=True, slots=True)
class Part:
    """Some slices of a series that belong together.

    Attributes
    ----------
    told : tuple of (str, str)
        What tells them from the others: keyword and value; where a value passes, its range.
    refusal : str, optional
        Why they are no volume.
    passing : frozenset of str
        Keywords in `told` whose value passes from slice to slice.
    """

    told: tuple[tuple[str, str], ...]
    slices: tuple[Slice, ...]
    refusal: str | None
    passing: frozenset[str] = frozenset()

    def __str__(self) -> str:
        named = ", ".join(f"{keyword} {value[:_LONGEST_TOLD]}" for keyword, value in self.told)
        return f"{named} ({count(len(self.slices), 'slice')}{', no volume' if self.refusal else ''})"

    def range_of(self, keyword: str) -> tuple[float, float] | None:
        """Smallest and largest value of a number; None where a slice has none."""
        found = [numbers(one.header, keyword, 1) for one in self.slices]
        return (min(found)[0], max(found)[0]) if all(found) else None

    def to_choose(self) -> str:
        """Write what a card says to take this part: lines of TOML."""
        return ", ".join(f"{keyword} = {self._quoted(keyword, value)}" for keyword, value in self.told)

    def _quoted(self, keyword: str, value: str) -> str:
        if keyword in self.passing:
            return value.split(" to ", maxsplit=1)[0]
        return value if _is_number(value) else f"'{value}'"


def split(slices: Sequence[Slice], place_of: Mapping[str, int], why: Why) -> list[Part]:
    """Split slices into volumes, as far as their headers tell them apart.

    Parameters
    ----------
    place_of : mapping of str to int
        Which place each slice lies at, by its key; slices at one place have the same number.
    why : callable
        Says why slices are no volume; None when they are one.

    Returns
    -------
    list of Part
        One part when nothing tells volumes apart. Otherwise the split that leaves most slices in volumes, in the order
        of their values; some of its parts may be none.
    """
    return _Splitter(place_of, why).parts(slices)


def told_apart(slices: Sequence[Slice], place_of: Mapping[str, int], why: Why) -> str:
    """Say what tells slices at one place apart although none of the parts is a volume; empty where nothing does."""
    way = _Splitter(place_of, why).told_apart(slices)
    if way is None:
        return ""
    values = _few([value for value, _ in way.groups])
    return (
        f"told apart by {way.keyword} ({values}), and none of them is a volume, as the first: {why(way.groups[0][1])}"
    )


class _Splitter:
    def __init__(self, place_of: Mapping[str, int], why: Why) -> None:
        self._place_of, self._why = place_of, why
        self._tried = 0

    def parts(self, slices: Sequence[Slice], of: Part | None = None) -> list[Part]:
        """Split some slices, which belong together by what `of` tells."""
        whole = Part(of.told if of else (), tuple(slices), self._why(slices), of.passing if of else frozenset())
        best = [whole]
        if whole.refusal is None or len(whole.told) == _DEEPEST or self._are_apart(slices):
            return best
        for way in self._ways(slices):
            self._tried += 1
            if self._tried > _MOST_TRIED:
                break
            parts = [one for value, some in way.groups for one in self.parts(some, way.told(whole, value))]
            if all(one.refusal is None for one in parts):
                return parts
            best = max(best, parts, key=_in_volumes)
        return best

    def told_apart(self, slices: Sequence[Slice]) -> _Way | None:
        """The first way that leaves no two slices at one place together."""
        ways = (way for way in self._ways(slices) if all(self._are_apart(some) for _, some in way.groups))
        return next(ways, None)

    def _are_apart(self, slices: Sequence[Slice]) -> bool:
        return len({self._place_of[one.key] for one in slices}) == len(slices)

    def _ways(self, slices: Sequence[Slice]) -> Iterator[_Way]:
        for keyword in TELLS_APART:
            groups: dict[str, list[Slice]] = {}
            for one in slices if keyword not in PASSING else ():
                groups.setdefault(value_of(one, keyword), []).append(one)
            if len(groups) > 1 and self._tells(groups.values()):
                yield _Way(keyword, sorted(groups.items(), key=_by_number))
            if keyword in _RANKED and (ranks := self._ranked(slices, keyword)):
                yield _Way(keyword, ranks, passes=True)

    def _tells(self, groups: Iterable[Sequence[Slice]]) -> bool:
        """Whether slices of one place are in different groups."""
        places = [{self._place_of[one.key] for one in group} for group in groups]
        return sum(map(len, places)) > len(set().union(*places))

    def _ranked(self, slices: Sequence[Slice], keyword: str) -> list[tuple[str, list[Slice]]]:
        """The first at each place, the second, ...: where all places have as many, and one lot ends before the next."""
        at: dict[int, list[tuple[float, Slice]]] = {}
        for one in slices:
            if not (number := numbers(one.header, keyword, 1)):
                return []
            at.setdefault(self._place_of[one.key], []).append((number[0], one))
        if len({len(some) for some in at.values()}) != 1:
            return []
        lots = list(zip(*(sorted(some, key=lambda one: one[0]) for some in at.values()), strict=True))
        ends = [(min(number for number, _ in lot), max(number for number, _ in lot)) for lot in lots]
        if any(last >= first for (_, last), (first, _) in pairwise(ends)):
            return []
        return [(_range(*end), [one for _, one in lot]) for end, lot in zip(ends, lots, strict=True)]


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to split slices: by the values of one attribute, or by ranges of them."""

    keyword: str
    groups: list[tuple[str, list[Slice]]]
    passes: bool = False

    def told(self, whole: Part, value: str) -> Part:
        passing = whole.passing | ({self.keyword} if self.passes else set())
        return replace(whole, told=(*whole.told, (self.keyword, value)), passing=passing)


def take(parts: Sequence[Part], choice: Choice) -> Part | str:
    """Take the volume that a card names.

    An attribute that no slice has chooses nothing. One volume alone is taken unless its values contradict the choice.

    Returns
    -------
    Part or str
        Or why there is none: a sentence.
    """
    left = list(parts)
    for keyword, wanted in choice.items():
        if all(value_of(one, keyword) == NONE for part in left for one in part.slices):
            continue
        found = _at_an_end(left, keyword, wanted) if wanted in (FIRST, LAST) else _with_value(left, keyword, wanted)
        if not found:
            there = list(dict.fromkeys(value_of(one, keyword) for part in left for one in part.slices))
            return f"No volume with {keyword} {_plain(wanted)}: the series has {_few(there)}."
        left = found
    if len(left) > 1:
        return f"{several(left)} What [volume] on the model's card says does not tell them apart."
    return left[0]


def several(parts: Sequence[Part]) -> str:
    """Say which volumes there are: a sentence."""
    return f"Several volumes in one series: {_few(map(str, parts), '; ')}."


def _at_an_end(parts: list[Part], keyword: str, end: Wanted) -> list[Part]:
    ranges = [(part, found) for part in parts if (found := part.range_of(keyword))]
    if not ranges:
        return parts
    pick = min if end == FIRST else max
    low, high = pick((found for _, found in ranges), key=lambda found: found[0 if end == FIRST else 1])
    return [part for part, found in ranges if found[0] <= high and found[1] >= low]


def _with_value(parts: list[Part], keyword: str, wanted: Wanted) -> list[Part]:
    """Of one part alone, any slice with the value will do: it is a volume already."""
    enough = any if len(parts) == 1 else all
    return [
        part
        for part in parts
        if enough(_is(one, keyword, wanted) for one in part.slices)
        or (keyword in part.passing and _is_within(part.range_of(keyword), wanted))
    ]


def _is(one: Slice, keyword: str, wanted: Wanted) -> bool:
    if isinstance(wanted, str):
        return wanted.casefold() in (v.casefold() for v in (*texts(one.header, keyword), value_of(one, keyword)))
    found = numbers(one.header, keyword, 1)
    return bool(found) and abs(found[0] - wanted) <= min(_NUMBER * abs(wanted), _MOST_OFF) + 1e-6


def _is_within(found: tuple[float, float] | None, wanted: Wanted) -> bool:
    return found is not None and not isinstance(wanted, str) and found[0] <= wanted <= found[1]


def value_of(one: Slice, keyword: str) -> str:
    """Write a value as a person compares it: numbers without zeros that say nothing, several of them by backslashes."""
    return "\\".join(map(_number_or_text, texts(one.header, keyword))) or NONE


def _number_or_text(text: str) -> str:
    return f"{float(text):.10g}" if _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < 1e9
    except ValueError:
        return False


def _by_number(item: tuple[str, list[Slice]]) -> tuple[float, str]:
    value = item[0]
    if _is_number(value):
        return float(value), ""
    return -math.inf if value == NONE else math.inf, value


def _range(low: float, high: float) -> str:
    return f"{low:.10g}" if low == high else f"{low:.10g} to {high:.10g}"


def _in_volumes(parts: Sequence[Part]) -> int:
    return sum(len(part.slices) for part in parts if part.refusal is None)


def _few(values: Iterable[str], between: str = ", ") -> str:
    every = list(values)
    more = f"{between}and {len(every) - _MOST_TOLD} more" if len(every) > _MOST_TOLD else ""
    return f"{between.join(value[: 4 * _LONGEST_TOLD] for value in every[:_MOST_TOLD])}{more}"


def _plain(wanted: Wanted) -> str:
    return wanted if isinstance(wanted, str) else f"{wanted:g}"
