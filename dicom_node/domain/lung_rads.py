"""Lung-RADS v2022 categories of nodules at a baseline scan, from their measurements.

American College of Radiology, Lung-RADS v2022 assessment categories (November 2022); Christensen et al., Chest
2024;165:738-53. What is calculated here is the table for solid, part-solid and non-solid nodules at baseline. What it
cannot know, and a reader has to: growth and nodules that are new (there is no prior), benign calcification and fat
(category 1), airway nodules, atypical cysts, infection (category 0), and 4X, which is a reader's suspicion.

The rule for juxtapleural nodules (solid, smooth, below 10 mm, of oval, lentiform or triangular shape: category 2) needs
the shape, which no model here judges: it is never applied, and the sentence says where it might be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from dicom_node.domain.nodule import (
    Attenuation,
    Conclusion,
    Margin,
    Nodule,
    NotCalculated,
    Size,
    below,
    mean_in_tenths,
)

CATEGORIES = ("1", "2", "3", "4A", "4B")  # in the order of suspicion
_JUXTAPLEURAL_MM = 1.0  # of the lung surface; the guideline says "abutting"
_SOLID = ((6, "2"), (8, "3"), (15, "4A"))
_SOLID_PART = ((6, "3"), (8, "4A"))
_GROUND_GLASS = ((30, "2"),)


def nodule_category(nodule: Nodule) -> Conclusion | NotCalculated:
    """Calculate the category of one nodule as if it were seen at a first screening CT.

    Returns
    -------
    Conclusion
        One of `CATEGORIES`, with a sentence such as ``solid, mean diameter 8.4 mm (9.0 x 7.8), baseline: 8 to < 15 mm →
        4A``.
    """
    mean = mean_in_tenths(nodule.long_mm, nodule.short_mm)
    match nodule.attenuation:
        case None:
            return NotCalculated("whether the nodule is solid is not known")
        case Attenuation.SOLID:
            category, words = below(mean.mm, _SOLID, "4B")
            return _said(nodule, mean, f"{words} → {category}{_remark(nodule, mean.mm, category)}", category)
        case Attenuation.GROUND_GLASS:
            category, words = below(mean.mm, _GROUND_GLASS, "3")
            return _said(nodule, mean, f"{words} → {category}", category)
        case Attenuation.PART_SOLID:
            return _part_solid(nodule, mean)


def _part_solid(nodule: Nodule, mean: Size) -> Conclusion:
    if mean.mm < 6:
        return _said(nodule, mean, "< 6 mm in all → 2", "2")
    solid = mean_in_tenths(nodule.solid_long_mm, nodule.solid_short_mm)
    category, words = below(solid.mm, _SOLID_PART, "4B")
    return _said(nodule, mean, f"solid part {solid.text}, {words} → {category}", category)


def _said(nodule: Nodule, mean: Size, conclusion: str, category: str) -> Conclusion:
    return Conclusion(category, f"{nodule.attenuation}, mean diameter {mean.text}, baseline: {conclusion}")


def _remark(nodule: Nodule, mean_mm: Decimal, category: str) -> str:
    """Say where a reader might apply the rule for juxtapleural nodules."""
    touches = nodule.surface_mm is not None and nodule.surface_mm <= _JUXTAPLEURAL_MM
    if touches and nodule.margin is not Margin.SPICULATED and mean_mm < 10 and category != "2":
        return "; at the lung surface: 2 if a reader finds it smooth and oval, lentiform or triangular (juxtapleural)"
    return ""


@dataclass(frozen=True, slots=True)
class Exam:
    """What is known of the whole scan.

    Attributes
    ----------
    nodules : mapping of str to Conclusion or NotCalculated
        The category of each nodule by its name, e.g. ``Nodule 1``.
    why_incomplete : str
        Why a nodule may lie where nobody looked, e.g. ``the lungs are not wholly in the scan``; empty when both lungs
        were searched whole.
    """

    nodules: Mapping[str, Conclusion | NotCalculated]
    why_incomplete: str = ""


def exam_category(exam: Exam) -> Conclusion | NotCalculated:
    """Calculate the category of the scan: the highest of its nodules, or 1 when there is none.

    Returns
    -------
    Conclusion
        Says "at least" where a part of the lungs was not searched or a nodule has no category of its own.
    """
    known = {name: c for name, c in exam.nodules.items() if isinstance(c, Conclusion)}
    if not exam.nodules:
        if exam.why_incomplete:
            return NotCalculated(exam.why_incomplete)
        return Conclusion("1", "no nodule was found in either lung → 1")
    if not known:
        return NotCalculated("whether the nodules are solid is not known")
    name = max(known, key=lambda name: CATEGORIES.index(known[name].value))
    limits = [exam.why_incomplete] if exam.why_incomplete else []
    if without := len(exam.nodules) - len(known):
        limits.append(f"{without} without a category")
    at_least = f"; at least: {', '.join(limits)}" if limits else ""
    which = name if len(exam.nodules) == 1 else f"highest of {len(exam.nodules)}: {name}"
    return Conclusion(known[name].value, f"{which}, {known[name].because}{at_least}")
