"""The part of a report page that is about nodules."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ai.evaluate import nodule_summary
from ai.evaluate.bootstrap import Interval
from ai.evaluate.classify import Classification
from ai.evaluate.froc import RATES, Performance
from ai.evaluate.nodule_summary import ALL, LARGER, Summary
from ai.evaluate.page import Page, how_many
from ai.evaluate.plot import Axis, Line, chart
from ai.evaluate.sets import Evaluation

_WORST = 8
_SHARE = tuple(n / 5 for n in range(6))
_SENSITIVITY = Axis("sensitivity", 0, 1, _SHARE)
_KINDS = {
    "missed": "Missed nodules, the largest first",
    "false": "False positives, the surest first",
    "outline": "Outlines, the worst first",
}


def write_nodules(page: Page, evaluation: Evaluation, summary: Summary, pictures: Path) -> None:
    """Write the section on one set.

    Parameters
    ----------
    page : Page
        Written to.
    evaluation : Evaluation
        The set.
    summary : Summary
        Its figures.
    pictures : pathlib.Path
        Where the close-ups lie.
    """
    page.heading(f"Nodules: {evaluation.name}")
    page.paragraph(_about(evaluation, summary))
    for failed in summary.failed:
        page.paragraph(f"{failed.id} was not judged. {failed.error}", "warning")
    page.cards(_cards(summary))
    titles = nodule_summary.tables(summary)
    detection, *others = titles.items()
    if summary.found[ALL].curve.nodules:
        page.heading("Detection", 3)
        page.charts(_froc_charts(summary))
    page.table(detection[1])
    page.paragraph(
        "A hit lies within the nodule's radius (LUNA16). CPM is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 "
        "false positives per scan. Intervals are bootstrapped over scans.",
        "soft",
    )
    for title, lines in others:
        if not title.startswith("Class"):
            page.heading(title, 3)
            page.charts(_volume_charts(summary))
            page.table(lines)
    for question, found in summary.classes.items():
        _write_class(page, question, found)
    _write_worst(page, summary, pictures)
    page.folded("Every case", nodule_summary.case_table(summary))
    page.folded("Every nodule", nodule_summary.nodule_table(summary))


def _about(evaluation: Evaluation, summary: Summary) -> str:
    sources = sorted({(r.source, r.licence, r.reference) for r in summary.results})
    known = "; ".join(f"{source} ({licence}), reference: {reference}" for source, licence, reference in sources)
    curve = summary.found[ALL].curve
    return f"{evaluation.about}. {how_many(curve.scans, 'scan')}, {how_many(curve.nodules, 'nodule')} to find. {known}."


def _cards(summary: Summary) -> list[tuple[str, str, str]]:
    cards = []
    if summary.found[ALL].curve.nodules:
        cards.append(_card(summary.found[ALL].cpm, "CPM, all nodules"))
    if summary.found[LARGER].curve.nodules:
        what = "sensitivity at 1 false positive per scan, nodules of 6 mm and more"
        cards.append(_card(summary.found[LARGER].at[1.0], what))
    if "Dice" in summary.outlined:
        cards.append(_card(summary.outlined["Dice"], "Dice of the nodules found"))
    if "attenuation" in summary.classes:
        cards.append(_card(summary.classes["attenuation"].accuracy, "attenuation named right", ".0%"))
    seconds = float(np.median([result.seconds for result in summary.results]))
    cards.append((f"{seconds:.1f} s", "per scan, median", f"on {summary.results[0].device or 'nothing'}"))
    return cards


def _card(figure: Interval, what: str, form: str = ".3f") -> tuple[str, str, str]:
    between = f"95 % CI {figure.low:{form}} to {figure.high:{form}}" if figure.is_known else "one scan: no interval"
    return f"{figure.value:{form}}", what, between


def _froc_charts(summary: Summary) -> list[tuple[str, str]]:
    x = Axis("false positives per scan", RATES[0], RATES[-1], RATES, log=True)
    groups = {
        "by size": [name for name in summary.found if name == ALL or name[0].isdigit()],
        "by attenuation": [name for name in summary.found if name != ALL and not name[0].isdigit()],
    }
    drawn = []
    for title, names in groups.items():
        lines = [_froc_line(name, summary.found[name], band=name == ALL) for name in names]
        if lines:
            drawn.append((chart(f"FROC {title}", x, _SENSITIVITY, lines), f"Free-response ROC {title}"))
    return drawn


def _froc_line(name: str, found: Performance, *, band: bool) -> Line:
    rates = np.geomspace(RATES[0], RATES[-1], 97)
    points = [(float(rate), found.curve.at(float(rate))) for rate in rates]
    interval = [(rate, one.low, one.high) for rate, one in found.at.items()] if band else []
    return Line(f"{name} ({found.curve.nodules})", points, interval)


def _volume_charts(summary: Summary) -> list[tuple[str, str]]:
    pairs = [
        (outline.reference_ml, outline.volume_ml)
        for result in summary.results
        for outline in result.outlines
        if outline.reference_ml
    ]
    sizes = [
        (result.nodules[outline.nodule].diameter_mm, outline.dice)
        for result in summary.results
        for outline in result.outlines
        if outline.dice is not None
    ]
    drawn = []
    if pairs:
        ticks = (0.01, 0.1, 1.0, 10.0)
        axes = [Axis(f"{whose} volume, ml", 0.01, 20, ticks, log=True) for whose in ("reference", "model's")]
        lines = [Line("", [(0.01, 0.01), (20, 20)], kind="guide"), Line("", pairs, kind="dots")]
        drawn.append((chart("volumes", axes[0], axes[1], lines), "Volumes of the nodules found; dashed: equal"))
    if sizes:
        x = Axis("diameter, mm", 3, 30, (3, 6, 10, 20, 30), log=True)
        dots = [Line("", sizes, kind="dots")]
        drawn.append((chart("Dice", x, Axis("Dice", 0, 1, _SHARE), dots), "Dice by the nodule's size"))
    return drawn


def _write_class(page: Page, question: str, found: Classification) -> None:
    page.heading(f"Class: {question}", 3)
    page.paragraph(
        f"Accuracy {found.accuracy}, Brier score {found.brier}, expected calibration error {found.ece}. "
        + "; ".join(f"AUC of {name} against the rest {area}" for name, area in found.auc.items() if area.value >= 0)
        + "."
    )
    rates = Axis("1 - specificity", 0, 1, _SHARE)
    curves = [
        Line(name, list(zip(roc.false_positive_rate.tolist(), roc.true_positive_rate.tolist(), strict=True)))
        for name, roc in found.roc.items()
    ]
    diagonal = Line("", [(0, 0), (1, 1)], kind="guide")
    most = max(one.count for one in found.bins)
    dots = Line(
        "",
        [(one.confidence, one.accuracy) for one in found.bins],
        kind="dots",
        sizes=[3 + 7 * (one.count / most) ** 0.5 for one in found.bins],
    )
    confidence, right = Axis("confidence", 0, 1, _SHARE), Axis("share that is right", 0, 1, _SHARE)
    page.charts(
        [
            (chart(f"ROC of {question}", rates, _SENSITIVITY, [diagonal, *curves]), "ROC, each class against the rest"),
            (
                chart(f"reliability of {question}", confidence, right, [diagonal, dots]),
                "Reliability: larger dots stand for more nodules; above the dashed line the model is too modest",
            ),
        ]
    )
    page.matrix(found.names, found.confusion.tolist(), "Confusion matrix, shaded by the share of its row")


def _write_worst(page: Page, summary: Summary, folder: Path) -> None:
    for kind, title in _KINDS.items():
        found = [
            (picture.badness, folder / picture.file, result.id, picture.caption)
            for result in summary.results
            for picture in result.pictures
            if picture.kind == kind and (folder / picture.file).is_file()
        ]
        found.sort(key=lambda one: -one[0])
        if found:
            page.heading(title, 3)
            page.pictures([(path, name, caption) for _, path, name, caption in found[:_WORST]])
    if any(result.pictures for result in summary.results):
        page.paragraph("50 mm of one slice, lung window; green: the reference, orange: the model.", "soft")
