"""Judges the lungs of a model on scans with a reference, and says which of them it was trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ai.data.lung_cases import TRAINING, read_lung_case
from ai.evaluate.nodules import Model
from ai.evaluate.overlap import TOLERANCE_MM, Agreement, agreement
from ai.evaluate.page import Page, how_many
from ai.evaluate.picture import save_picture

_NAMES = {1: "left lung", 2: "right lung"}


@dataclass(frozen=True, slots=True)
class LungResult:
    """One lung of one case: how it agrees with whose outline, and how long the scan took."""

    case: str
    output: str
    reference: str
    found: Agreement
    seconds: float
    picture: Path | None = None

    @property
    def seen(self) -> bool:
        """Whether the lung model that ships was trained on this scan: its figure then says little."""
        return self.case in TRAINING


def evaluate_lungs(
    model: Model,
    data: Path,
    names: Sequence[str],
    pictures: Path | None,
    *,
    timeout_s: float,
    step: Callable[[str], None],
) -> list[LungResult]:
    """Compare with the reference, case by case.

    Parameters
    ----------
    model : Model
        Has the outputs ``left lung`` and ``right lung``.
    data : pathlib.Path
        The development data (see `ai.data.lung_cases`).
    names : sequence of str
        Cases of its lists.
    pictures : pathlib.Path, optional
        A folder for one PNG per case.
    timeout_s : float
        For each answer.
    step : callable
        Told the name of each case when it is done.

    Returns
    -------
    list of LungResult
        One for each lung that the reference knows.
    """
    results = []
    for name in names:
        case = read_lung_case(name, data)
        started = time.monotonic()
        prediction = model.predict(case.volume, timeout_s=timeout_s)
        seconds = time.monotonic() - started
        labels = np.zeros(case.labels.shape, dtype=np.uint8)
        for value, output in _NAMES.items():
            labels[prediction.mask(output)] = value
        picture = None
        if pictures is not None:
            picture = pictures / f"lungs-{name}.png"
            pictures.mkdir(parents=True, exist_ok=True)
            save_picture(case.volume, labels, picture)
        for value in case.known:
            found = agreement(prediction.mask(_NAMES[value]), case.labels == value, case.volume.spacing_mm)
            results.append(LungResult(name, _NAMES[value], case.reference, found, seconds, picture))
        step(name)
    return results


def lung_table(results: list[LungResult]) -> list[str]:
    """Lines of a Markdown table, one row for each lung."""
    lines = [
        f"| case | lung | reference | Dice | IoU | HD95 mm | surface Dice ({TOLERANCE_MM:g} mm) | volume ml "
        "| reference ml | s |",
        "|---" * 10 + "|",
    ]
    for one in results:
        found = one.found
        case = f"{one.case} (trained on)" if one.seen else one.case
        lines.append(
            f"| {case} | {one.output} | {one.reference} | {found.dice:.3f} | {found.iou:.3f} | {found.hd95_mm:.1f} "
            f"| {found.surface_dice:.3f} | {found.volume_ml:.0f} | {found.reference_ml:.0f} | {one.seconds:.0f} |"
        )
    return lines


def write_lungs(page: Page, results: list[LungResult]) -> None:
    """Write the section of a report page."""
    page.heading("Lungs")
    fresh = [one for one in results if not one.seen]
    people = len({one.case for one in fresh})
    page.paragraph(
        f"Real scans at full resolution. The large figures are of {how_many(people, 'person', 'people')} that no lung "
        "model here was trained on: no claim beyond."
    )
    worst = min(fresh, key=lambda one: one.found.dice)
    page.cards(
        [
            (f"{worst.found.dice:.3f}", "lowest Dice", f"{worst.case}, {worst.output}"),
            (f"{max(one.found.hd95_mm for one in fresh):.1f} mm", "largest HD95", "95th percentile of distances"),
            (f"{min(one.found.surface_dice for one in fresh):.3f}", "lowest surface Dice", f"{TOLERANCE_MM:g} mm"),
        ]
    )
    page.table(lung_table(results))
    shown = {one.picture: one for one in results if one.picture is not None}
    page.pictures(
        [(path, one.case, "The model's lungs: axial above, coronal below") for path, one in shown.items()], full=True
    )
