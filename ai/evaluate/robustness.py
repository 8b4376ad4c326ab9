"""What changes when the same chest is scanned in another way: noise, kernel, thickness, breathing, orientation.

Each phantom is drawn once and scanned under every condition, so that a difference between two rows of the table is the
condition's and not the anatomy's. Lungs and nodules are those that the whole model gives, as at a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ai.contract import ModelError, Prediction
from ai.data.case import Case
from ai.evaluate.conditions import Condition
from ai.evaluate.froc import match
from ai.evaluate.log import ResultLog
from ai.evaluate.nodules import Model, Result, compare
from ai.evaluate.page import Page, how_many
from ai.evaluate.sets import phantom_case

if TYPE_CHECKING:
    from ai.phantom.scanner import ScannerPlan

FIRST_SEED = 600_000  # drawn for nothing else
NODULES = 5
LARGER_MM = 6.0
Scans = Callable[[int, Sequence[Condition]], Iterable[Case]]
_LUNGS = {1: "left lung", 2: "right lung"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, over all phantoms of one condition.

    Parameters
    ----------
    condition : str
    scans : int
        Those that the model answered.
    lung_dice, lowest_lung_dice : float
        Mean and minimum over both lungs of each.
    found, nodules, found_larger, larger : int
        Nodules found at the operating point, of how many; the same of those of 6 mm and more.
    false_per_scan : float
        False positives at the operating point.
    dice : float
        Mean over the nodules found; NaN without any.
    named_right : float
        Share of the nodules found whose attenuation was named right.
    failed : tuple of str
        Why the model gave no answer.
    """

    condition: str
    scans: int
    lung_dice: float
    lowest_lung_dice: float
    found: int
    nodules: int
    found_larger: int
    larger: int
    false_per_scan: float
    dice: float
    named_right: float
    failed: tuple[str, ...] = ()


def run_robustness(
    model: Model,
    seeds: Sequence[int],
    wanted: Sequence[Condition],
    scans: Scans,
    log: ResultLog,
    *,
    timeout_s: float,
    step: Callable[[str], None],
) -> None:
    """Ask the model about every phantom under every condition that is not in the log yet.

    Parameters
    ----------
    model : Model
        Has the outputs ``left lung`` and ``right lung``, and detects nodules.
    seeds : sequence of int
        Of the phantoms.
    wanted : sequence of Condition
        The ways to scan.
    scans : callable
        Draws the phantom of a seed and scans it under some conditions: `scanned_phantoms`.
    log : ResultLog
        Where each answer is kept; a stopped run goes on there.
    timeout_s : float
        For each answer.
    step : callable
        Told each phantom and condition when it is done.
    """
    for seed in seeds:
        todo = [condition for condition in wanted if _key(seed, condition) not in log.done]
        for condition in wanted:
            if condition not in todo:
                step(_key(seed, condition))
        for condition, case in zip(todo, scans(seed, todo) if todo else (), strict=True):
            log.add({"id": _key(seed, condition), **_judged(condition.change(case), model, timeout_s)})
            step(_key(seed, condition))


def scanned_phantoms(
    seed: int, wanted: Sequence[Condition], *, spacing_mm: tuple[float, float, float], device: str
) -> Iterator[Case]:
    """Draw one phantom with `NODULES` nodules on a grid, and scan it by the plan of each condition."""
    from ai.phantom.chest import scan_phantom
    from ai.phantom.scanner import ScannerPlan

    plans: list[ScannerPlan] = [replace(ScannerPlan(seed=seed), **condition.plan) for condition in wanted]
    for phantom in scan_phantom(seed, plans, spacing_mm, device=device, nodules=NODULES):
        yield phantom_case(phantom, f"phantom-{seed}")


def rows(log: ResultLog, seeds: Sequence[int], wanted: Sequence[Condition], least_score: float) -> list[Row]:
    """Sum the answers up, condition by condition, at one operating point: the score from which a node reports."""
    return [_row(condition, [log.done[_key(seed, condition)] for seed in seeds], least_score) for condition in wanted]


def robustness_table(found: Sequence[Row]) -> list[str]:
    """Lines of a Markdown table, one row for each condition."""
    lines = [
        "| scan | lung Dice, mean (lowest) | nodules found | 6 mm and more | false per scan | Dice of those found "
        "| attenuation right |",
        "|---" * 7 + "|",
    ]
    for row in found:
        lungs = f"{row.lung_dice:.3f} ({row.lowest_lung_dice:.3f})" if row.scans else "-"
        lines.append(
            f"| {row.condition} | {lungs} | {row.found} of {row.nodules} | {row.found_larger} of {row.larger} "
            f"| {row.false_per_scan:.2f} | {_shown(row.dice)} | {_shown(row.named_right)} |"
        )
    return lines


def write_robustness(page: Page, found: Sequence[Row], phantoms: int) -> None:
    """Write the section of a report page."""
    page.heading("Robustness")
    page.paragraph(
        f"{how_many(phantoms, 'phantom')}, each with up to {NODULES} nodules, drawn once and scanned in every way. "
        "A nodule is found when it is hit at the score from which a node reports it. Slices thicker than the card "
        "accepts are shown, although a node does not look for nodules in them."
    )
    for row in found:
        for error in row.failed:
            page.paragraph(f"{row.condition}: no answer. {error}", "warning")
    page.table(robustness_table(found))


def _key(seed: int, condition: Condition) -> str:
    return f"phantom-{seed}, {condition.name}"


def _judged(case: Case, model: Model, timeout_s: float) -> dict[str, Any]:
    try:
        prediction = model.predict(case.volume, timeout_s=timeout_s)
    except ModelError as error:
        return {"error": str(error)}
    return {"lungs": _lung_dice(case, prediction), "nodules": compare(case, prediction).to_json()}


def _lung_dice(case: Case, prediction: Prediction) -> list[float]:
    assert case.labels is not None
    dice = []
    for value, name in _LUNGS.items():
        mask, truth = prediction.mask(name), case.labels == value
        dice.append(2 * int((mask & truth).sum()) / max(1, int(mask.sum()) + int(truth.sum())))
    return dice


def _row(condition: Condition, records: Sequence[Mapping[str, Any]], least_score: float) -> Row:
    answered = [record for record in records if "error" not in record]
    lungs = [dice for record in answered for dice in record["lungs"]]
    counted: list[tuple[bool, bool]] = []  # large, found
    dice: list[float] = []
    right: list[bool] = []
    false = 0
    for record in answered:
        result = _at_least(Result.from_json(record["nodules"]), least_score)
        matched = match(result.scan)
        false += len(matched.false)
        outlines = {outline.nodule: outline for outline in result.outlines}
        for index, nodule in enumerate(result.nodules):
            if nodule.excluded:
                continue
            hit = int(matched.hit_by[index])
            counted.append((nodule.diameter_mm >= LARGER_MM, hit >= 0))
            if hit >= 0:
                kinds = result.spots[hit].classes.get("attenuation", {})
                right.append(bool(kinds) and max(kinds, key=lambda kind: kinds[kind]) == nodule.attenuation)
                dice.append(outlines[index].dice or 0.0)
    return Row(
        condition=condition.name,
        scans=len(answered),
        lung_dice=float(np.mean(lungs)) if lungs else float("nan"),
        lowest_lung_dice=min(lungs, default=float("nan")),
        found=sum(found for _, found in counted),
        nodules=len(counted),
        found_larger=sum(found for large, found in counted if large),
        larger=sum(large for large, _ in counted),
        false_per_scan=false / max(1, len(answered)),
        dice=float(np.mean(dice)) if dice else float("nan"),
        named_right=float(np.mean(right)) if right else float("nan"),
        failed=tuple(str(record["error"]) for record in records if "error" in record),
    )


def _at_least(result: Result, score: float) -> Result:
    """What a node would report: the surest come first, so that indices of outlines stay those of the spots."""
    return replace(result, spots=tuple(spot for spot in result.spots if spot.score >= score))


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
