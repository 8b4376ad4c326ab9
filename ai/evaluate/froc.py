"""Detection of nodules judged as LUNA16 does it: free-response ROC, operating points, CPM, bootstrap intervals.

A candidate hits a nodule when it lies within the nodule's radius. Several hits on one nodule count once, by the highest
score; hits on what the reference excludes are neither right nor wrong; everything else is a false positive. The curve
is read at 1/8 to 8 false positives per scan, and the mean of the seven sensitivities is the CPM (competition
performance metric): Niemeijer et al., IEEE TMI 2011;30:215-23; Setio et al., Med Image Anal 2017;42:1-13. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ai.data.nodule import ATTENUATIONS, Nodule
from ai.evaluate.bootstrap import RESAMPLES, Interval, bootstrap

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SIZES_MM = ((3.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, 30.0))

Counts = Callable[[Nodule], bool]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that a model took for a nodule: LPS mm, and a score that grows with certainty."""

    centre_mm: tuple[float, float, float]
    score: float


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan: what the model said of it and what is known of it."""

    name: str
    candidates: tuple[Candidate, ...]
    nodules: tuple[Nodule, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What became of the candidates and nodules of one scan.

    Parameters
    ----------
    hit_by : numpy.ndarray of int, shape (nodules,)
        Index of the candidate with the highest score among those that hit the nodule; -1 if it was missed.
    hit_score : numpy.ndarray of float, shape (nodules,)
        That candidate's score; -inf if the nodule was missed.
    false : numpy.ndarray of int
        Indices of the candidates that hit nothing at all, not even something excluded.
    """

    hit_by: NDArray[np.int64]
    hit_score: NDArray[np.float64]
    false: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A free-response ROC curve.

    Parameters
    ----------
    fp_per_scan, sensitivity, threshold : numpy.ndarray of float, shape (points,)
        One point for each score that occurs, from the highest on; it begins with (0, 0) at infinity.
    nodules, scans : int
        How many there were to find, in how many scans.
    """

    fp_per_scan: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    threshold: NDArray[np.float64]
    nodules: int
    scans: int

    def at(self, rate: float) -> float:
        """Sensitivity at `rate` false positives per scan, on straight lines between the points, as LUNA16 reads it.

        Beyond the last point it is that of the last point. NaN when there was nothing to find.
        """
        return float(np.interp(rate, self.fp_per_scan, self.sensitivity))

    @property
    def cpm(self) -> float:
        """Mean of the sensitivities at the seven operating points of `RATES`."""
        return float(np.mean([self.at(rate) for rate in RATES]))


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """How well nodules, or those of one class, are found.

    Parameters
    ----------
    curve : Curve
        Over all scans.
    cpm : Interval
        Mean sensitivity at the operating points.
    at : mapping of float to Interval
        False positives per scan to sensitivity.
    """

    curve: Curve
    cpm: Interval
    at: Mapping[float, Interval]


def match(scan: Scan) -> Matched:
    """Decide which candidate hits which nodule of one scan."""
    points = np.array([candidate.centre_mm for candidate in scan.candidates], dtype=np.float64).reshape(-1, 3)
    scores = np.array([candidate.score for candidate in scan.candidates], dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"{scan.name}: a candidate's score is not a number.")
    hit_by = np.full(len(scan.nodules), -1, dtype=np.int64)
    hit_score = np.full(len(scan.nodules), -np.inf)
    used = np.zeros(len(points), dtype=np.bool_)
    for index, nodule in enumerate(scan.nodules):
        near = np.linalg.norm(points - np.array(nodule.centre_mm), axis=1) < nodule.diameter_mm / 2
        used |= near
        if near.any():
            hit_by[index] = np.argmax(np.where(near, scores, -np.inf))
            hit_score[index] = scores[hit_by[index]]
    return Matched(hit_by, hit_score, np.flatnonzero(~used))


def froc(scans: Sequence[Scan], counts: Counts = lambda _: True) -> Curve:
    """Compute the curve over all scans.

    Parameters
    ----------
    scans : sequence of Scan
        Also those without any nodule: their false positives count.
    counts : callable
        Which nodules are to be found; the others are treated as excluded ones are.

    Raises
    ------
    ValueError
        If there is no scan, or a score is not finite.
    """
    return _curve(_events(scans, counts), np.ones(len(scans)))


def performance(
    scans: Sequence[Scan], counts: Counts = lambda _: True, *, resamples: int = RESAMPLES, seed: int = 0
) -> Performance:
    """Curve, operating points and CPM, with confidence intervals.

    Parameters
    ----------
    scans : sequence of Scan
        Also those without any nodule.
    counts : callable
        Which nodules are to be found.
    resamples, seed : int
        See `bootstrap`; draws without any nodule are left out.
    """
    events = _events(scans, counts)

    def figures(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        curve = _curve(events, drawn)
        return np.array([curve.cpm, *(curve.at(rate) for rate in RATES)])

    cpm, *at = bootstrap(figures, len(scans), resamples=resamples, seed=seed)
    return Performance(_curve(events, np.ones(len(scans))), cpm, MappingProxyType(dict(zip(RATES, at, strict=True))))


def by_size(scans: Sequence[Scan], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Performance]:
    """`performance` for each size class of `SIZES_MM` that occurs; the upper end of a class belongs to the next."""
    return _by(scans, {f"{a:g} to {b:g} mm": _sized(a, b) for a, b in SIZES_MM}, resamples, seed)


def by_attenuation(scans: Sequence[Scan], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Performance]:
    """`performance` for solid, part-solid and ground-glass nodules, where they occur."""
    return _by(scans, {name: _attenuating(name) for name in ATTENUATIONS}, resamples, seed)


def at_least(diameter_mm: float) -> Counts:
    """Count the nodules of that diameter or more, for `froc` and `performance`."""
    return lambda nodule: nodule.diameter_mm >= diameter_mm


def table(rows: Mapping[str, Performance]) -> list[str]:
    """Lines of a Markdown table: one row for each class, sensitivity at each operating point, CPM with its interval."""
    rates = " | ".join(f"{rate:g}" for rate in RATES)
    lines = [f"| nodules | n | scans | {rates} | CPM (95 % CI) |", "|---" * (len(RATES) + 4) + "|"]
    for name, found in rows.items():
        values = " | ".join(f"{found.at[rate].value:.3f}" for rate in RATES)
        lines.append(f"| {name} | {found.curve.nodules} | {found.curve.scans} | {values} | {found.cpm} |")
    return lines


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Every hit and false positive of all scans in the order of their scores, and the scan that each belongs to."""

    score: NDArray[np.float64]
    scan: NDArray[np.int64]
    is_hit: NDArray[np.bool_]
    ends: NDArray[np.int64]
    nodules: NDArray[np.int64]


def _events(scans: Sequence[Scan], counts: Counts) -> _Events:
    if not scans:
        raise ValueError("There is no scan to judge.")
    score, number, is_hit = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.bool_)]
    nodules = np.zeros(len(scans), dtype=np.int64)
    for index, scan in enumerate(scans):
        matched = match(scan)
        wanted = np.array([not nodule.excluded and counts(nodule) for nodule in scan.nodules], dtype=np.bool_)
        nodules[index] = wanted.sum()
        hits = matched.hit_score[wanted & (matched.hit_by >= 0)]
        false = np.array([scan.candidates[which].score for which in matched.false])
        score += [hits, false]
        number.append(np.full(len(hits) + len(false), index))
        is_hit += [np.ones(len(hits), np.bool_), np.zeros(len(false), np.bool_)]
    scores = np.concatenate(score)
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    # Equal scores are one operating point: a threshold takes all of them or none.
    ends = np.flatnonzero(np.diff(sorted_scores, append=-np.inf) != 0)
    return _Events(sorted_scores, np.concatenate(number)[order], np.concatenate(is_hit)[order], ends, nodules)


def _curve(events: _Events, weights: NDArray[np.float64]) -> Curve:
    weight = weights[events.scan]
    hits = np.cumsum(weight * events.is_hit)[events.ends]
    false = np.cumsum(weight * ~events.is_hit)[events.ends]
    nodules, scans = float(weights @ events.nodules), float(weights.sum())
    with np.errstate(invalid="ignore"):
        sensitivity = np.concatenate([[0.0], hits]) / nodules if nodules else np.full(len(hits) + 1, np.nan)
    thresholds = np.concatenate([[np.inf], events.score[events.ends]])
    return Curve(np.concatenate([[0.0], false]) / scans, sensitivity, thresholds, round(nodules), round(scans))


def _by(scans: Sequence[Scan], classes: Mapping[str, Counts], resamples: int, seed: int) -> dict[str, Performance]:
    present = {name: counts for name, counts in classes.items() if _any(scans, counts)}
    return {name: performance(scans, counts, resamples=resamples, seed=seed) for name, counts in present.items()}


def _any(scans: Iterable[Scan], counts: Counts) -> bool:
    return any(counts(nodule) and not nodule.excluded for scan in scans for nodule in scan.nodules)


def _sized(low_mm: float, high_mm: float) -> Counts:
    return lambda nodule: low_mm <= nodule.diameter_mm < high_mm


def _attenuating(name: str) -> Counts:
    return lambda nodule: nodule.attenuation == name
