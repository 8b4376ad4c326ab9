"""Several volumes in one series: which attributes tell them apart, and which of them a model's card takes.

Slices that share a place belong to different volumes: echoes, b-values, time points, phases, kernels. They are split by
what their headers say, attribute by attribute, until each part is one volume. Nothing is guessed: a card names the
volume that it takes, or the series is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
RANKED = ("TriggerTime", *PASSING)
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


@dataclass(frozen=True, slots=True)
class Way:
    """A way to split slices: by the values of one attribute, or by ranges of them where they pass."""

    keyword: str
    groups: list[tuple[str, list[Slice]]]
    passes: bool = False

    def parts(self, whole: Part, why: Why) -> list[Part]:
        """Split some slices, which belong together by what they tell, into parts that tell more."""
        passing = whole.passing | ({self.keyword} if self.passes else set())
        return [
            Part((*whole.told, (self.keyword, value)), tuple(some), why(some), passing) for value, some in self.groups
        ]


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
            return f"No volume with {keyword} {_plain(wanted)}: the series has {few(there)}."
        left = found
    if len(left) > 1:
        return f"{several(left)} What [volume] on the model's card says does not tell them apart."
    return left[0]


def several(parts: Sequence[Part]) -> str:
    """Say which volumes there are: a sentence."""
    return f"Several volumes in one series: {few(map(str, parts), '; ')}."


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


def by_number(item: tuple[str, list[Slice]]) -> tuple[float, str]:
    """Sort groups by their value: none first, then numbers, then texts."""
    value = item[0]
    if _is_number(value):
        return float(value), ""
    return -math.inf if value == NONE else math.inf, value


def range_of(low: float, high: float) -> str:
    """Write a range as a person reads it."""
    return f"{low:.10g}" if low == high else f"{low:.10g} to {high:.10g}"


def few(values: Iterable[str], between: str = ", ") -> str:
    """Write the first of many."""
    every = list(values)
    more = f"{between}and {len(every) - _MOST_TOLD} more" if len(every) > _MOST_TOLD else ""
    return f"{between.join(value[: 4 * _LONGEST_TOLD] for value in every[:_MOST_TOLD])}{more}"


def _plain(wanted: Wanted) -> str:
    return wanted if isinstance(wanted, str) else f"{wanted:g}"
