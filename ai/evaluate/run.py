"""Runs a model over a set: the next case is made while the model looks at this one, and a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ai.contract import ModelError
from ai.data.case import Case, Entry
from ai.evaluate.log import ResultLog
from ai.evaluate.nodules import Model, Result, judge
from ai.evaluate.sets import Evaluation


def run_set(
    evaluation: Evaluation,
    model: Model,
    out: Path,
    made_by: Mapping[str, Any],
    *,
    timeout_s: float,
    step: Callable[[str], None],
) -> list[Result]:
    """Judge all cases of a set.

    Parameters
    ----------
    evaluation : Evaluation
        The cases.
    model : Model
        Asked once for each case that is not in ``out/NAME.jsonl`` yet.
    out : pathlib.Path
        A folder for results and pictures.
    made_by : mapping
        What decides the results beside the set's own seeds: the bundle's digest.
    timeout_s : float
        For each answer.
    step : callable
        Told the name of each case when it is done.

    Returns
    -------
    list of Result
        In the order of the set. A case that could not be read, or that the model failed on, has an `error`.

    Raises
    ------
    ValueError
        If ``out`` holds results of something else.
    """
    log = ResultLog(out / f"{evaluation.name}.jsonl", {"set": evaluation.name, **evaluation.made_by, **made_by})
    todo = [entry for entry in evaluation.entries if entry.id not in log.done]
    for entry in evaluation.entries:
        if entry.id in log.done:
            step(entry.id)
    for entry, case in _read_ahead(todo):
        log.add(_judged(entry, case, model, timeout_s, out / "pictures").to_json())
        step(entry.id)
    return [Result.from_json(log.done[entry.id]) for entry in evaluation.entries]


def _judged(entry: Entry, case: Case | Exception, model: Model, timeout_s: float, pictures: Path) -> Result:
    if isinstance(case, Exception):
        return Result(entry.id, "", "", "", error=f"not read: {type(case).__name__}: {case}")
    if not case.knows_nodules:
        return Result(entry.id, "", "", "", error="not judged: nobody looked for nodules in it")
    try:
        return judge(case, model, timeout_s, pictures)
    except ModelError as error:
        known = case.provenance
        return Result(entry.id, known.source, known.licence, known.reference, nodules=case.nodules, error=str(error))


def _read_ahead(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Case | Exception]]:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_read, entries[0]) if entries else None
        for index, entry in enumerate(entries):
            assert coming is not None
            case = coming.result()
            coming = pool.submit(_read, entries[index + 1]) if index + 1 < len(entries) else None
            yield entry, case


def _read(entry: Entry) -> Case | Exception:
    try:
        return entry.read()
    except (ValueError, OSError, KeyError, AttributeError) as error:
        return error
