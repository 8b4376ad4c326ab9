"""Figures over a whole set: how many nodules were found at how many false positives, how well outlined and classed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ai.data.nodule import ATTENUATIONS, MARGINS
from ai.evaluate import classify, froc
from ai.evaluate.bootstrap import Interval
from ai.evaluate.classify import Answer, Classification
from ai.evaluate.froc import Performance
from ai.evaluate.nodules import Result
from ai.evaluate.overlap import mean_over_scans

ALL, LARGER = "all", "6 mm and more"
QUESTIONS = {"attenuation": ATTENUATIONS, "margin": MARGINS}
_CLOSE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What a set showed.

    Parameters
    ----------
    results : tuple of Result
        Of the cases that were judged.
    failed : tuple of Result
        Of those that were not, each with its error.
    found : mapping of str to Performance
        `ALL`, `LARGER`, then the size classes and attenuations that occur.
    outlined : mapping of str to Interval
        Over the nodules that were hit: Dice, surface Dice, errors of volume and diameter.
    classes : mapping of str to Classification
        By question; over the nodules that were hit and whose class the reference knows.
    """

    results: tuple[Result, ...]
    failed: tuple[Result, ...]
    found: Mapping[str, Performance]
    outlined: Mapping[str, Interval]
    classes: Mapping[str, Classification]


def summarise(results: Sequence[Result], *, resamples: int, seed: int) -> Summary:
    """Compute all figures of a set.

    Parameters
    ----------
    results : sequence of Result
        At least one without an error.
    resamples, seed : int
        See `ai.evaluate.bootstrap.bootstrap`.

    Raises
    ------
    ValueError
        If there is nothing to judge.
    """
    judged = tuple(result for result in results if not result.error)
    if not judged:
        raise ValueError("No case was judged: " + "; ".join(sorted({result.error for result in results}))[:500])
    scans = [result.scan for result in judged]
    found = {
        ALL: froc.performance(scans, resamples=resamples, seed=seed),
        LARGER: froc.performance(scans, froc.at_least(6.0), resamples=resamples, seed=seed),
        **froc.by_size(scans, resamples=resamples, seed=seed),
        **froc.by_attenuation(scans, resamples=resamples, seed=seed),
    }
    return Summary(
        results=judged,
        failed=tuple(result for result in results if result.error),
        found=found,
        outlined=_outlined(judged, resamples, seed),
        classes={
            question: classify.classification(answers, names, resamples=resamples, seed=seed)
            for question, names in QUESTIONS.items()
            if (answers := _answers(judged, question, names))
        },
    )


def tables(summary: Summary) -> dict[str, list[str]]:
    """Markdown tables by their title: detection, outlines, classes."""
    shown = {"Detection: sensitivity at false positives per scan": froc.table(summary.found)}
    if summary.outlined:
        rows = [f"| {name} | {value} |" for name, value in summary.outlined.items()]
        shown["Outlines of the nodules that were found"] = ["| figure | mean (95 % CI) |", "|---|---|", *rows]
    for question, found in summary.classes.items():
        shown[f"Class: {question}"] = classify.table(question, found)
    return shown


def case_table(summary: Summary) -> list[str]:
    """One row for each case."""
    lines = ["| case | nodules | found | false | surest false | mean Dice | s |", "|---" * 7 + "|"]
    for result in summary.results:
        matched = froc.match(result.scan)
        counted = [index for index, nodule in enumerate(result.nodules) if not nodule.excluded]
        hits = sum(matched.hit_by[index] >= 0 for index in counted)
        surest = max((result.spots[index].score for index in matched.false), default=None)
        dice = [outline.dice for outline in result.outlines if outline.dice is not None]
        lines.append(
            f"| {result.id} | {len(counted)} | {hits} | {len(matched.false)} | {_or_dash(surest, '.2f')} "
            f"| {_or_dash(float(np.mean(dice)) if dice else None, '.3f')} | {result.seconds:.1f} |"
        )
    return lines + [f"| {result.id} | {result.error.replace('|', '/')} | | | | | |" for result in summary.failed]


def nodule_table(summary: Summary) -> list[str]:
    """One row for each nodule that counts; `false above` are the false positives of its scan that were surer."""
    lines = [
        "| case | mm | attenuation | score | false above | Dice | ml | reference ml | volume error |",
        "|---" * 9 + "|",
    ]
    for result in summary.results:
        matched = froc.match(result.scan)
        outlines = {outline.nodule: outline for outline in result.outlines}
        for index, nodule in enumerate(result.nodules):
            if nodule.excluded:
                continue
            start = f"| {result.id} | {nodule.diameter_mm:.1f} | {nodule.attenuation or '-'} |"
            outline = outlines.get(index)
            if outline is None:
                lines.append(f"{start} missed | - | - | - | {_or_dash(nodule.volume_ml, '.3f')} | - |")
                continue
            score = matched.hit_score[index]
            above = sum(result.spots[which].score >= score for which in matched.false)
            lines.append(
                f"{start} {score:.2f} | {above} | {_or_dash(outline.dice, '.3f')} | {outline.volume_ml:.3f} "
                f"| {_or_dash(outline.reference_ml, '.3f')} | {_or_dash(outline.volume_error, '+.0%')} |"
            )
    return lines


def _outlined(results: Sequence[Result], resamples: int, seed: int) -> dict[str, Interval]:
    found = [(result.id, outline) for result in results for outline in result.outlines]
    figures = {
        "Dice": [(scan, one.dice) for scan, one in found],
        "surface Dice (1 mm)": [(scan, one.surface_dice) for scan, one in found],
        "volume error, relative": [(scan, one.volume_error) for scan, one in found],
        "volume error, relative, absolute": [(scan, _absolute(one.volume_error)) for scan, one in found],
        "share with a volume within 25 %": [(scan, _within(one.volume_error)) for scan, one in found],
        "diameter error, mm": [(scan, one.diameter_error_mm) for scan, one in found],
        "diameter error, mm, absolute": [(scan, _absolute(one.diameter_error_mm)) for scan, one in found],
    }
    intervals = {}
    for name, values in figures.items():
        known = [(scan, value) for scan, value in values if value is not None]
        if known:
            intervals[name] = mean_over_scans(
                [value for _, value in known], [scan for scan, _ in known], resamples=resamples, seed=seed
            )
    return intervals


def _answers(results: Sequence[Result], question: str, names: tuple[str, ...]) -> list[Answer]:
    answers = []
    for result in results:
        for outline in result.outlines:
            nodule, said = result.nodules[outline.nodule], result.spots[outline.spot].classes.get(question)
            truth = nodule.attenuation if question == "attenuation" else nodule.margin
            if truth and said and set(said) == set(names):
                answers.append(Answer(result.id, said, truth))
    return answers


def _absolute(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _within(error: float | None) -> float | None:
    return None if error is None else float(abs(error) <= _CLOSE)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
