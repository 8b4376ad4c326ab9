"""Where a training says how it goes: a CSV file, TensorBoard where it is installed, and a bar for who watches."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ai.train.checkpoint import write_text
from ai.train.task import Say

_EVERY_S = 10.0


class Log:
    """Rows of figures in RUN/log.csv, and the same in RUN/tensorboard.

    Parameters
    ----------
    run : pathlib.Path
    step : int
        Rows beyond it, left by a training that died after its last checkpoint, are dropped.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._path = run / "log.csv"
        self._rows = [row for row in read_log(run) if int(row["step"]) <= step] if step else []
        self._board = _board(run / "tensorboard", step)

    def write(self, step: int, **figures: float) -> None:
        """Add one row."""
        self._rows.append({"step": str(step), **{name: f"{value:.6g}" for name, value in figures.items()}})
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(text.getvalue(), self._path)
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()


def read_log(run: Path) -> list[dict[str, str]]:
    """Rows of RUN/log.csv; none where there is no such file."""
    path = run / "log.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


class Progress:
    """Tells a person how far it is: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, steps: int, say: Say, bar: Any) -> None:
        self._steps, self._say, self._bar = steps, say, bar
        self._task = bar.add_task("", total=steps) if bar is not None else None
        self._started = self._said = time.monotonic()
        self._first: int | None = None

    def at(self, step: int, figures: Mapping[str, float]) -> None:
        """Say that `step` steps are done."""
        now = time.monotonic()
        self._first = step - 1 if self._first is None else self._first
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=shown)
        elif now - self._said >= _EVERY_S or step == self._steps:
            pace = (step - self._first) / max(now - self._started, 1e-9)
            left_s = (self._steps - step) / max(pace, 1e-9)
            self._say(f"step {step}/{self._steps}  {shown}  {pace:.2f} steps/s  {left_s:.0f} s left")
            self._said = now


@contextmanager
def progress(steps: int, say: Say) -> Iterator[Progress]:
    """A bar where a person looks at a terminal and rich is installed; lines otherwise."""
    if not sys.stderr.isatty():
        yield Progress(steps, say, None)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield Progress(steps, say, None)
        return
    text = TextColumn("{task.description}")
    columns = (MofNCompleteColumn(), BarColumn(), text, TimeRemainingColumn(), TextColumn("left"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield Progress(steps, say, bar)
