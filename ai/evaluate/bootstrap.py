"""How far a figure could be off by the luck of the draw: percentile bootstrap over scans. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % confidence interval; the ends are NaN where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})" if self.is_known else f"{self.value:.3f}"

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], scans: int, *, resamples: int, seed: int
) -> list[Interval]:
    """Intervals of figures that are computed over scans (Efron and Tibshirani 1993, percentile method).

    Parameters
    ----------
    statistic : callable
        Given how often each scan was drawn, shape (scans,), it returns the figures, shape (figures,). A figure that
        the drawn scans do not have is NaN and left out of its interval.
    scans : int
        What is drawn is whole scans: findings of one patient are not independent.
    resamples : int
        How often as many scans are drawn, with replacement.
    seed : int
        The same seed draws the same scans.

    Returns
    -------
    list of Interval
        One for each figure; without ends when there is only one scan, for then there is no luck of the draw to tell.
    """
    values = statistic(np.ones(scans))
    if scans < 2:
        return [Interval(float(value), np.nan, np.nan) for value in values]
    rng = np.random.default_rng(seed)
    drawn = np.full((max(1, resamples), len(values)), np.nan)
    for row in drawn[:resamples]:
        row[:] = statistic(np.bincount(rng.integers(scans, size=scans), minlength=scans).astype(np.float64))
    return [_interval(float(value), column) for value, column in zip(values, drawn.T, strict=True)]


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    known = drawn[np.isfinite(drawn)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))
