"""Rules without consequences: tried on one series or file, and replayed over the last days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from typing import Any

from pydicom import dcmread
from sqlalchemy import Connection, Row

from dicom_node.admin.desk import Desk
from dicom_node.db import browse, overview
from dicom_node.db.engine import utc_now
from dicom_node.db.series import closed_since, read_closed
from dicom_node.domain.candidate import Candidate, choose
from dicom_node.domain.rule import FACTS, ORIGIN, Match, Rule, Values
from dicom_node.errors import ConflictError, NotFoundError
from dicom_node.examination import examine_stored
from dicom_node.route import ask_rules, ask_rules_of_file, ask_rules_of_header

LONGEST_RULE = 20_000  # characters
LONGEST_REPLAY = 90  # days
MOST_REPLAYED = 5000
MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Replayed:
    """One series of a replay: what the changed rule would have said, and what the rule as it is says."""

    row: Row[Any]
    match: Match
    matched_before: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """What a changed rule would have done.

    Attributes
    ----------
    gained, lost : int
        Series that match now and did not by the rule of the same name as it is, and the other way round.
    studies : int or None
        Of a rule that wants several series, in how many studies every role is filled; None of another.
    new_jobs : int
        Of the series that match, or of these studies, those that have no job of this model.
    model_s : float or None
        Time the model would have computed for all of them, in seconds, from its own history; None without one.
    history : int
        Of how many attempts.
    truncated : bool
        Whether there were more series than were looked at.
    """

    days: int
    looked_at: int
    matched: int
    studies: int | None
    gained: int
    lost: int
    new_jobs: int
    model_s: float | None
    history: int
    truncated: bool
    shown: tuple[Replayed, ...]


def try_on_series(tx: Connection, desk: Desk, series_id: str, rules: Iterable[Rule]) -> list[Match]:
    """Ask rules about a series that is here, exactly as routing would.

    Raises
    ------
    NotFoundError
        When there is no such series.
    """
    series = read_closed(tx, series_id)
    if series is None:
        raise NotFoundError("there is no such series, or its images are not here (any more)")
    verdict = examine_stored(series.instances, desk.spool.path, series.expected_count)
    return ask_rules(series, verdict, rules, desk.spool)


def try_on_file(data: bytes, facts: dict[str, Values], rules: Iterable[Rule]) -> list[Match]:
    """Ask rules about one DICOM file; nothing of it is kept.

    Raises
    ------
    ConflictError
        When it is no DICOM file.
    """
    try:
        ds = dcmread(BytesIO(data), stop_before_pixels=True)
    except Exception as error:  # whatever the parser says of what somebody dropped
        raise ConflictError("this is no DICOM file that can be read") from error
    return ask_rules_of_file(ds, facts, rules)


def replay(tx: Connection, desk: Desk, rule: Rule, days: int) -> Replay:
    """Ask a changed rule about every series that was closed in the last days.

    Each series speaks through its first instance and what was found when it was closed.
    """
    as_is = [r for r in desk.catalog.rules if r.name == rule.name]
    rows = closed_since(tx, utc_now() - timedelta(days=days), MOST_REPLAYED + 1)
    asked = [_ask(row, rule, as_is, desk) for row in rows[:MOST_REPLAYED]]
    matched = [one for one in asked if one.match.matched]
    computing = overview.model_seconds(tx, rule.model)
    done = {job.series_id for job in _jobs(tx, matched) if job.model == rule.model}
    would = [[one.row.id] for one in matched] if not rule.inputs else _filled(rule, matched)
    changed = sorted(asked, key=lambda one: (one.match.matched == one.matched_before, not one.match.matched))
    return Replay(
        days=days,
        looked_at=len(asked),
        matched=len(matched),
        studies=len(would) if rule.inputs else None,
        gained=sum(not one.matched_before for one in matched),
        lost=sum(one.matched_before and not one.match.matched for one in asked),
        new_jobs=sum(done.isdisjoint(one) for one in would),
        model_s=computing[0] * len(would) if computing else None,
        history=computing[1] if computing else 0,
        truncated=len(rows) > MOST_REPLAYED,
        shown=tuple(changed[:MOST_SHOWN]),
    )


def _filled(rule: Rule, matched: Sequence[Replayed]) -> list[list[str]]:
    """Of each study that fills every role of a rule, the series that fit one. Which was acquired first is not known."""
    studies: dict[str, list[Replayed]] = {}
    for one in matched:
        studies.setdefault(one.row.study_id, []).append(one)
    filled = []
    for series in studies.values():
        candidates = [_candidate(one.row, role) for one in series for role in one.match.roles]
        if len(choose(rule.inputs, candidates)) == len(rule.inputs):
            filled.append([one.row.id for one in series])
    return filled


def _candidate(row: Row[Any], role: str) -> Candidate:
    spacing = (row.verdict or {}).get("slice_spacing_mm")
    return Candidate(row.id, row.series_instance_uid, row.revision, role, (), spacing, "", 0, refusal=row.refusal)


def _ask(row: Row[Any], rule: Rule, as_is: Sequence[Rule], desk: Desk) -> Replayed:
    found = row.verdict or {}
    facts: dict[str, Values] = {key: (found[key],) for key in FACTS if isinstance(found.get(key), (int, float, bool))}
    facts |= {fact: (row._mapping[fact],) for fact in ORIGIN if row._mapping[fact]}
    match, *before = ask_rules_of_header(row.header, row.path, facts, [rule, *as_is], desk.spool)
    return Replayed(row, match, any(one.matched for one in before))


def _jobs(tx: Connection, matched: Sequence[Replayed]) -> list[Row[Any]]:
    ids = [one.row.id for one in matched]
    some = [ids[start : start + 500] for start in range(0, len(ids), 500)]
    return [job for few in some for job in browse.jobs_of_series(tx, few)]
