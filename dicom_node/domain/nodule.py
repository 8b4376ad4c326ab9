"""A lung nodule as guidelines see it, and what a calculation concludes from it.

Guidelines round: Lung-RADS to a tenth of a millimetre, Fleischner and TNM to whole millimetres, halves upwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

_TENTH, _WHOLE = Decimal("0.1"), Decimal(1)


class Attenuation(StrEnum):
    """How dense a nodule is: the answers of a model to the question ``attenuation``."""

    SOLID = "solid"
    PART_SOLID = "part-solid"
    GROUND_GLASS = "ground-glass"


class Margin(StrEnum):
    """What its edge looks like: the answers of a model to the question ``margin``."""

    SMOOTH = "smooth"
    SPICULATED = "spiculated"


@dataclass(frozen=True, slots=True)
class Nodule:
    """One nodule, measured on the axial plane and not rounded. What is not known is None.

    Attributes
    ----------
    solid_long_mm, solid_short_mm : float
        Diameters of the solid part of a part-solid nodule; 0 when it has none that is dense enough.
    upper_lobe : bool, optional
        None where the lobe is not known. A third of the height of the lung is no lobe.
    surface_mm : float, optional
        Distance to the surface of the lung.
    """

    attenuation: Attenuation | None
    long_mm: float
    short_mm: float
    solid_long_mm: float = 0.0
    solid_short_mm: float = 0.0
    margin: Margin | None = None
    upper_lobe: bool | None = None
    surface_mm: float | None = None


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What was calculated, the sentence of inputs that led to it, and `value` in words where it is short for some."""

    value: str
    because: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class NotCalculated:
    """Why nothing was calculated."""

    reason: str


@dataclass(frozen=True, slots=True)
class Size:
    """A diameter as a guideline rounds it, and the words for it."""

    mm: Decimal
    text: str


def mean_in_tenths(long_mm: float, short_mm: float) -> Size:
    """Mean diameter by the rules of Lung-RADS: both axes to a tenth of a millimetre, then their mean."""
    long, short = tenths(long_mm), tenths(short_mm)
    mean = ((long + short) / 2).quantize(_TENTH, ROUND_HALF_UP)
    return Size(mean, f"{mean} mm ({long} x {short})")


def mean_in_millimetres(long_mm: float, short_mm: float) -> Size:
    """Mean diameter by the rules of the Fleischner Society: the mean of both axes, to the nearest millimetre."""
    mean = millimetres((float(tenths(long_mm)) + float(tenths(short_mm))) / 2)
    return Size(mean, f"{mean} mm ({tenths(long_mm)} x {tenths(short_mm)})")


def tenths(mm: float) -> Decimal:
    """Round to a tenth of a millimetre, halves upwards."""
    return Decimal(repr(mm)).quantize(_TENTH, ROUND_HALF_UP)


def millimetres(mm: float) -> Decimal:
    """Round to whole millimetres, halves upwards."""
    return Decimal(repr(mm)).quantize(_WHOLE, ROUND_HALF_UP)


def below(size: Decimal, steps: tuple[tuple[int, str], ...], last: str) -> tuple[str, str]:
    """Find the step of a scale that a size falls in.

    Parameters
    ----------
    steps : tuple of (upper limit, value)
        Ascending; a size equal to a limit belongs to the next step.
    last : str
        The value from the last limit on.

    Returns
    -------
    (str, str)
        The value, and its range in words: ``8 to < 15 mm``.
    """
    return _step(size, steps, last, lambda size, limit: size < limit, ("< {0} mm", "{0} to < {1} mm", "≥ {0} mm"))


def up_to(size: Decimal, steps: tuple[tuple[int, str], ...], last: str) -> tuple[str, str]:
    """Find the step of a scale that a size falls in; a size equal to a limit belongs to the step that it ends.

    Returns
    -------
    (str, str)
        The value, and its range in words: ``> 10 to 20 mm``.
    """
    return _step(size, steps, last, lambda size, limit: size <= limit, ("≤ {0} mm", "> {0} to {1} mm", "> {0} mm"))


def _step(
    size: Decimal,
    steps: tuple[tuple[int, str], ...],
    last: str,
    fits: Callable[[Decimal, int], bool],
    words: tuple[str, str, str],
) -> tuple[str, str]:
    before: int | None = None
    for limit, value in steps:
        if fits(size, limit):
            return value, words[0].format(limit) if before is None else words[1].format(before, limit)
        before = limit
    return last, words[2].format(before)
