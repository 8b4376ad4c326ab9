"""Judges what a model outlines, whatever that is, on cases whose label maps have the same names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ai.data.case import Case, Entry
from ai.evaluate.bootstrap import RESAMPLES
from ai.evaluate.nodules import Model
from ai.evaluate.overlap import TOLERANCE_MM, Agreement, agreement, mean_over_scans
from ai.evaluate.page import Page, how_many
from ai.evaluate.picture import save_picture


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """One output of one case: how it agrees with the label map, and how long the case took."""

    case: str
    output: str
    found: Agreement
    seconds: float
    picture: Path | None = None


def evaluate_segments(
    model: Model,
    entries: Sequence[Entry],
    pictures: Path | None,
    *,
    timeout_s: float,
    step: Callable[[str], None],
) -> list[SegmentResult]:
    """Compare every structure that a case's label map names with the model's output of that name.

    Parameters
    ----------
    model : Model
        Of one image; its outputs have the names of the labels.
    entries : sequence of Entry
        Cases with label maps that the model was not trained on.
    pictures : pathlib.Path, optional
        A folder for one PNG per case.
    timeout_s : float
        For each answer.
    step : callable
        Told the name of each case when it is done.

    Raises
    ------
    ValueError
        If a case has no label map, or several images.
    ModelInvalidOutput
        If the model has no output of a label's name.
    """
    results = []
    for entry in entries:
        case = entry.read()
        if case.labels is None or not case.label_names or len(case.images) != 1:
            raise ValueError(f"{case.id}: judged are cases of one image with a label map whose values have names.")
        started = time.monotonic()
        prediction = model.predict(case.volume, timeout_s=timeout_s)
        seconds = time.monotonic() - started
        marked = np.zeros(case.labels.shape, dtype=np.uint8)
        for value, output in case.label_names.items():
            marked[prediction.mask(output)] = value
        picture = _picture(case, marked, pictures)
        for value, output in case.label_names.items():
            found = agreement(prediction.mask(output), case.labels == value, case.volume.spacing_mm)
            results.append(SegmentResult(case.id, output, found, seconds, picture))
        step(case.id)
    return results


def _picture(case: Case, marked: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], pictures: Path | None) -> Path | None:
    if pictures is None:
        return None
    pictures.mkdir(parents=True, exist_ok=True)
    path = pictures / f"segments-{case.id}.png"
    save_picture(case.volume, marked, path)
    return path


def segment_table(results: Sequence[SegmentResult], *, resamples: int = RESAMPLES, seed: int = 0) -> list[str]:
    """Lines of a Markdown table: a row for each output of each case, and the means with their intervals."""
    lines = [
        f"| case | output | Dice | HD95 mm | surface Dice ({TOLERANCE_MM:g} mm) | volume ml | reference ml | s |",
        "|---" * 8 + "|",
    ]
    for one in results:
        found = one.found
        lines.append(
            f"| {one.case} | {one.output} | {found.dice:.3f} | {found.hd95_mm:.1f} | {found.surface_dice:.3f} "
            f"| {found.volume_ml:.1f} | {found.reference_ml:.1f} | {one.seconds:.0f} |"
        )
    for output in dict.fromkeys(one.output for one in results):
        of_it = [one for one in results if one.output == output]
        cases = [one.case for one in of_it]
        dice = mean_over_scans([one.found.dice for one in of_it], cases, resamples=resamples, seed=seed)
        surface = mean_over_scans([one.found.surface_dice for one in of_it], cases, resamples=resamples, seed=seed)
        lines.append(f"| mean of {len(of_it)} | {output} | {dice} | | {surface} | | | |")
    return lines


def write_segments(page: Page, results: Sequence[SegmentResult], table: Sequence[str]) -> None:
    """Write the section of a report page."""
    page.heading("Segments")
    worst = sorted({one.case: one for one in sorted(results, key=lambda one: -one.found.dice)}.values(), key=_dice)
    page.paragraph(f"{how_many(len(worst), 'case')}, at full resolution; the worst come first among the pictures.")
    page.table(table)
    page.pictures(
        [(one.picture, one.case, "What the model marked: axial above, coronal below") for one in worst if one.picture],
        full=True,
    )


def _dice(one: SegmentResult) -> float:
    return one.found.dice
