"""How far two answers about the same images agree, in voxels, findings and millilitres.

Structures are compared by label: the Dice coefficient 2|A and B| / (|A| + |B|). Findings, of which there may be many,
are matched one to one, the pair with the most overlap first; what overlaps with nothing is one model's alone. Volumes
are compared as differences with their limits of agreement (Bland and Altman, Lancet 1986;327:307-310).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = Mapping[str, NDArray[np.uint8]]  # SOP Instance UID of the image -> its voxels, packed
EMPTY: Mask = {}


@dataclass(frozen=True, slots=True)
class Marked:
    """One thing that a model marked. `is_finding`: it was detected, and there may be more of its kind."""

    label: str
    is_finding: bool
    volume_ml: float | None
    mask: Mask


@dataclass(frozen=True, slots=True)
class Match:
    """The same thing in both answers; a structure that only one marked is matched with nothing, at Dice 0."""

    label: str
    is_finding: bool
    dice: float
    volumes_ml: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one series: what both marked, and the labels of findings that only the first or the second has.

    `is_silent`: neither marked a voxel, which is no agreement about anything.
    """

    matches: tuple[Match, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    is_silent: bool = False

    @property
    def worst(self) -> float:
        """0 to 1; 0 as soon as one model found what the other did not, 1 when both marked the same or nothing."""
        return 0.0 if self.only_first or self.only_second else min((m.dice for m in self.matches), default=1.0)


@dataclass(slots=True)
class Row:
    """What `summarise` says of one label, over all series."""

    label: str
    is_finding: bool
    dice: list[float] = field(default_factory=list)
    differences_ml: list[float] = field(default_factory=list)
    only_first: int = 0
    only_second: int = 0

    @property
    def limits_ml(self) -> tuple[float, float, float] | None:
        """Mean difference (second minus first), and the limits within which 95 % of the differences lie."""
        if len(self.differences_ml) < 2:
            return None
        mean, spread = statistics.fmean(self.differences_ml), 1.96 * statistics.stdev(self.differences_ml)
        return mean, mean - spread, mean + spread


def marked(segments: Sequence[Mapping[str, Any]], masks: Mapping[int, Mask]) -> list[Marked]:
    """Join what the summary of a result says with the voxels of its segmentation, by segment number."""
    return [
        Marked(
            str(one.get("detected") or one["label"]),
            "score" in one or "detected" in one,
            one.get("volume_ml"),
            masks.get(int(one.get("number") or 0), EMPTY),
        )
        for one in segments
    ]


def agree(first: Sequence[Marked], second: Sequence[Marked]) -> Agreement:
    """Compare two answers."""
    matches = [_structure(label, first, second) for label in _labels(first, second, is_finding=False)]
    only_first: list[str] = []
    only_second: list[str] = []
    for label in _labels(first, second, is_finding=True):
        ours = [m for m in first if m.label == label]
        theirs = [m for m in second if m.label == label]
        found = _match(ours, theirs)
        matches += [Match(label, True, d, (ours[i].volume_ml, theirs[j].volume_ml)) for i, j, d in found]
        only_first += [label] * (len(ours) - len(found))
        only_second += [label] * (len(theirs) - len(found))
    silent = not any(each.is_finding or _count(each.mask) for each in (*first, *second))
    return Agreement(tuple(matches), tuple(only_first), tuple(only_second), silent)


def summarise(agreements: Sequence[Agreement]) -> list[Row]:
    """Put together what was seen of each label, structures first."""
    rows: dict[tuple[bool, str], Row] = {}

    def row(label: str, *, is_finding: bool) -> Row:
        return rows.setdefault((is_finding, label), Row(label, is_finding))

    for one in agreements:
        for match in one.matches:
            into = row(match.label, is_finding=match.is_finding)
            into.dice.append(match.dice)
            before, after = match.volumes_ml
            if before is not None and after is not None:
                into.differences_ml.append(after - before)
        for label in one.only_first:
            row(label, is_finding=True).only_first += 1
        for label in one.only_second:
            row(label, is_finding=True).only_second += 1
    return [rows[key] for key in sorted(rows)]


def dice(a: Mask, b: Mask) -> float:
    """Dice coefficient of two masks on the same images; 1 when both are empty."""
    total = _count(a) + _count(b)
    return 2 * _common(a, b) / total if total else 1.0


def _structure(label: str, first: Sequence[Marked], second: Sequence[Marked]) -> Match:
    a = next((m for m in first if m.label == label and not m.is_finding), None)
    b = next((m for m in second if m.label == label and not m.is_finding), None)
    overlap = dice(a.mask if a else EMPTY, b.mask if b else EMPTY) if a and b else 0.0
    return Match(label, False, overlap, (a.volume_ml if a else 0.0, b.volume_ml if b else 0.0))


def _match(ours: Sequence[Marked], theirs: Sequence[Marked]) -> list[tuple[int, int, float]]:
    """Pairs of positions with their Dice coefficients, each position in one pair at most."""
    near = [(dice(a.mask, b.mask), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs)]
    pairs: list[tuple[int, int, float]] = []
    for overlap, i, j in sorted(near, key=lambda each: (-each[0], each[1:])):
        if overlap > 0 and all(i != x and j != y for x, y, _ in pairs):
            pairs.append((i, j, overlap))
    return pairs


def _labels(first: Sequence[Marked], second: Sequence[Marked], *, is_finding: bool) -> list[str]:
    return list(dict.fromkeys(m.label for m in (*first, *second) if m.is_finding == is_finding))


def _count(mask: Mask) -> int:
    return sum(int(np.bitwise_count(voxels).sum()) for voxels in mask.values())


def _common(a: Mask, b: Mask) -> int:
    return sum(int(np.bitwise_count(a[uid] & b[uid]).sum()) for uid in a.keys() & b.keys())
