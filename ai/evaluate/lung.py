"""Judges the lung model on the two scans that it was not trained on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ai.data.lung_cases import HELD_OUT, read_lung_case
from ai.evaluate.overlap import agreement
from ai.evaluate.picture import save_picture
from ai.process import ModelProcess

_NAMES = {1: "left lung", 2: "right lung"}


def evaluate_lung(bundle: Path, data: Path, pictures: Path | None, say: Callable[[str], None]) -> None:
    """Print a Markdown table of agreement with the reference, case by case.

    Parameters
    ----------
    bundle : pathlib.Path
        The bundle to judge.
    data : pathlib.Path
        The development data (see `ai.data.lung_cases`).
    pictures : pathlib.Path, optional
        A folder for one PNG per case.
    say : callable
        Told one line at a time.
    """
    say("| case | lung | reference | Dice | HD95 mm | volume ml | reference ml | time s |")
    say("|---|---|---|---|---|---|---|---|")
    with ModelProcess(bundle) as model:
        for name in HELD_OUT:
            case = read_lung_case(name, data)
            started = time.monotonic()
            prediction = model.predict(case.volume, timeout_s=1800)
            took_s = time.monotonic() - started
            labels = np.zeros(case.labels.shape, dtype=np.uint8)
            for value, output in _NAMES.items():
                mask = prediction.mask(output)
                labels[mask] = value
                if value in case.known:
                    found = agreement(mask, case.labels == value, case.volume.spacing_mm)
                    say(
                        f"| {name} | {output} | {case.reference} | {found.dice:.3f} | {found.hd95_mm:.1f} "
                        f"| {found.volume_ml:.0f} | {found.reference_ml:.0f} | {took_s:.0f} |"
                    )
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                save_picture(case.volume, labels, pictures / f"{name}.png")
