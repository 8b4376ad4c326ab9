"""Results on disk, one line of JSON for each case, so that a run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ResultLog:
    """A file of results whose first line says what was judged, and how.

    Parameters
    ----------
    path : pathlib.Path
        Made if it is not there.
    made_by : mapping
        What decides the results: the bundle's digest, seeds. A file that was made by something else is refused.

    Raises
    ------
    ValueError
        If the file holds results of another model, or of another set.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]) -> None:
        self._path = path
        header = json.loads(json.dumps(dict(made_by)))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(header)
        first, *rest = _lines(path)
        if first != header:
            changed = [key for key in {**first, **header} if first.get(key) != header.get(key)]
            raise ValueError(f"{path.name} was made with another {', '.join(sorted(changed))}; choose another folder.")
        self._done = {str(record["id"]): record for record in rest}

    @property
    def done(self) -> Mapping[str, Mapping[str, Any]]:
        """Results by the name of their case."""
        return self._done

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one result; it is on disk when this returns."""
        self._append(record)
        self._done[str(record["id"])] = dict(record)

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; the last may have been cut off when the run was killed, and is then taken away."""
    text = path.read_text(encoding="utf-8")
    whole, newline, cut = text.rpartition("\n")
    if cut:
        path.write_text(whole + newline, encoding="utf-8")
    lines = [json.loads(line) for line in whole.splitlines() if line]
    if not lines:
        raise ValueError(f"{path.name} is no file of results.")
    return lines
