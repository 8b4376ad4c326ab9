"""Routing of studies: rules that want several series, one in each role, and wait for them.

A study is decided on when one of its series is closed, in the transaction that closes it, and when nobody waits any
longer. A job is made when every role is filled and nothing of the study is on its way; it takes the place of the one
that the rule made before of other series. When the wait is over, it is made of what is there, or fails from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from dicom_node.db import studies
from dicom_node.db.audit import record
from dicom_node.db.inputs import NewInput
from dicom_node.db.jobs import JobQueue
from dicom_node.db.routing import NewJob, insert_job, supersede
from dicom_node.db.series import ClosedSeries
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.candidate import Candidate, choose
from dicom_node.domain.job import Priority
from dicom_node.domain.model import ModelCard
from dicom_node.domain.rule import Rule, Values
from dicom_node.domain.study import Verdict
from dicom_node.domain.uids import study_job_id
from dicom_node.explain.words import bare, clock_time
from dicom_node.route.schedule import destinations_of, schedule, told_by

# When a series was acquired, by which a repeat is told from what it repeats; else when it was made.
_TIMES = (("AcquisitionDateTime",), ("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime"))
ACQUIRED = tuple(key for keys in _TIMES for key in keys)


@dataclass(frozen=True, slots=True)
class StudyDesk:
    """What deciding on a study needs: the rules, the cards of their models, and the queue."""

    rules: Sequence[Rule]
    models: Mapping[str, ModelCard]
    queue: JobQueue
    max_attempts: int

    def rule(self, name: str) -> Rule | None:
        """Give a rule that wants several series, if there is one of that name and it is switched on."""
        return next((rule for rule in self.rules if rule.name == name and rule.inputs and rule.enabled), None)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is there for a rule: everything that fits a role, what was chosen, and the roles that nothing fills."""

    rule: Rule
    candidates: Sequence[Candidate]
    chosen: Mapping[str, Candidate]

    @property
    def missing(self) -> list[str]:
        return [role.name for role in self.rule.inputs if role.name not in self.chosen]


def candidates_of(
    series: ClosedSeries,
    verdict: Verdict,
    roles: Sequence[str],
    values: Mapping[str, Values],
    priority: Priority,
) -> list[Candidate]:
    """Describe a series that was just closed for the roles that it fits; `verdict` is on what the model takes of it."""
    spacing = verdict.facts.get("slice_spacing_mm")
    one = Candidate(
        series_id=series.id,
        series_instance_uid=series.series_instance_uid,
        series_revision=series.revision,
        role="",
        slices=() if verdict.refusal else verdict.slices,
        slice_spacing_mm=float(spacing) if isinstance(spacing, (int, float)) else None,
        acquired_at=_acquired_at(values),
        priority=priority.value,
        note=None if verdict.refusal else series.lacking,
        refusal=verdict.refusal,
    )
    return [replace(one, role=role) for role in roles]


def route_study(tx: Connection, series: ClosedSeries, fits: Mapping[str, Sequence[Candidate]], desk: StudyDesk) -> None:
    """Decide on a study, of which a series was just closed; by rule, `fits` are the roles that it could fill."""
    touched = {*fits, *studies.write_roles(tx, series.id, fits), *studies.rules_waiting(tx, series.study_id)}
    for rule in desk.rules:
        if rule.name in touched and desk.rule(rule.name):
            _decide(tx, series.study_id, rule, desk, series.closed_at, closed=series.id)
    for job_id in studies.jobs_on_older(tx, series.id, series.revision):
        supersede(tx, job_id, series.closed_at, revision=series.revision)


def route_study_again(
    tx: Connection, series: ClosedSeries, fits: Mapping[str, Sequence[Candidate]], desk: StudyDesk, now: datetime
) -> None:
    """Decide for the rules whose roles a complete series fits by the way that it came again, and did not before."""
    for name in studies.add_roles(tx, series.id, fits):
        if rule := desk.rule(name):
            _decide(tx, series.study_id, rule, desk, now, closed=series.id)


def decide_overdue(tx: Connection, study_id: str, rule_name: str, desk: StudyDesk, now: datetime) -> bool:
    """Decide on a study whose wait for a rule is over. False: somebody else has, or it waits on."""
    studies.lock_study(tx, study_id)
    if not studies.is_over(tx, study_id, rule_name, now):
        return False
    rule = desk.rule(rule_name)
    if rule is None:
        studies.end_wait(tx, study_id, rule_name)
        gone = f"rule {rule_name}, which it could have been used for, is no more"
        candidates = studies.read_candidates(tx, study_id, rule_name)
        studies.tell_roles(tx, rule_name, {one.series_id: gone for one in candidates})
        return True
    _decide(tx, study_id, rule, desk, now)
    return True


def _decide(
    tx: Connection, study_id: str, rule: Rule, desk: StudyDesk, now: datetime, *, closed: str | None = None
) -> None:
    """Make the job, wait, or give up; without a series that was just `closed`, the wait is over."""
    roles = {role.name for role in rule.inputs}
    candidates = [one for one in studies.read_candidates(tx, study_id, rule.name) if one.role in roles]
    choice = _Choice(rule, candidates, choose(rule.inputs, candidates))
    waits = bool(choice.missing) or studies.is_receiving(tx, study_id)
    if candidates and waits and closed is not None:
        _wait(tx, study_id, choice, now, closed)
        return
    studies.end_wait(tx, study_id, rule.name)
    if choice.missing and candidates:
        _give_up(tx, study_id, choice, desk, now)
    elif candidates:
        _make(tx, study_id, choice, desk, now)


def _wait(tx: Connection, study_id: str, choice: _Choice, now: datetime, closed: str) -> None:
    rule = choice.rule
    until = studies.wait_for_series(tx, study_id, rule.name, now, rule.wait_s)
    lacks = " and ".join(choice.missing) or "what else of the study is on its way"
    _tell(tx, choice, f"{lacks} {'are' if len(choice.missing) > 1 else 'is'} waited for until {clock_time(until)}")
    fills = [one.role for one in choice.candidates if one.series_id == closed]
    if fills:
        detail = {"rule": rule.name, "fits": fills, "missing": choice.missing, "until": until.isoformat("T", "seconds")}
        record(tx, AuditEvent(Event.STUDY_WAITS, series_id=closed, detail=detail))


def _make(tx: Connection, study_id: str, choice: _Choice, desk: StudyDesk, now: datetime) -> None:
    """Schedule the job, unless it is there already."""
    inputs = tuple(_input(one, one.slices) for one in choice.chosen.values())
    _insert(tx, study_id, choice, desk, inputs, None, now)
    _tell(tx, choice, "")


def _give_up(tx: Connection, study_id: str, choice: _Choice, desk: StudyDesk, now: datetime) -> None:
    """Say what is missing to whoever wants to know: in a job that failed from the start, or in a reason."""
    rule = choice.rule
    lacks = "; ".join(_why_missing(role, choice.candidates) for role in choice.missing)
    error = f"Rule {rule.name} waited {rule.wait_s:g} s for all its series: {lacks}."
    for series_id in dict.fromkeys(one.series_id for one in choice.candidates):
        detail = {"rule": rule.name, "missing": choice.missing, "reason": error}
        record(tx, AuditEvent(Event.STUDY_LACKS, series_id=series_id, detail=detail))
    there = list(choice.chosen.values()) or list(choice.candidates[:1])
    if told_by([rule]):
        _insert(tx, study_id, choice, desk, tuple(_input(one, ()) for one in there), error, now)
    _tell(tx, choice, f"{bare(error[0].lower() + error[1:])}; it is looked at again when another series comes")


def _insert(
    tx: Connection,
    study_id: str,
    choice: _Choice,
    desk: StudyDesk,
    inputs: tuple[NewInput, ...],
    error: str | None,
    now: datetime,
) -> None:
    rule, first = choice.rule, inputs[0]
    named = frozenset((one.role, one.series_id, one.series_revision) for one in inputs)
    jobs = studies.study_jobs(tx, study_id, rule.name)
    if jobs and jobs[0].inputs == named:
        return
    version = desk.models[rule.model].version
    before = sum(job.inputs == named for job in jobs)
    used = [one for one in choice.candidates if any(one.series_id == each.series_id for each in inputs)]
    notes = [f"{one.role}: {one.note}" for one in choice.chosen.values() if one.note]
    job = NewJob(
        id=study_job_id(rule.name, rule.model, version, named, before),
        series_id=first.series_id,
        series_revision=first.series_revision,
        rule=rule.name,
        model=rule.model,
        model_version=version,
        destinations=destinations_of([rule]),
        report_to=told_by([rule]),
        slices=first.slices,
        note=None if error else "; ".join(notes) or None,
        priority=min(rule.priority.value, *(one.priority for one in used)),
        max_attempts=desk.max_attempts,
        error=error,
        inputs=inputs,
        run_no=studies.last_run(tx, first.series_id, first.series_revision, rule.model, version) + 1,
        supersedes=jobs[0].id if jobs else None,
    )
    if insert_job(tx, job, now):
        schedule(tx, job, desk.queue)
        for older in jobs:
            supersede(tx, older.id, now, by=job.id)


def _input(one: Candidate, slices: tuple[str, ...]) -> NewInput:
    return NewInput(one.role, one.series_id, one.series_revision, slices)


def _tell(tx: Connection, choice: _Choice, text: str) -> None:
    """Say of every series that fits a role what became of it."""
    taken = {one.series_id: one for one in choice.chosen.values()}
    said: dict[str, str | None] = {}
    for one in choice.candidates:
        head = f"rule {choice.rule.name}: it "
        if one.refusal:
            said[one.series_id] = f"{head}would fit {one.role}, but is no volume: {bare(one.refusal)}"
        elif one.series_id in taken:
            said[one.series_id] = f"{head}fills {taken[one.series_id].role}; {text}" if text else None
        elif one.role in choice.chosen:
            other = choice.chosen[one.role].series_instance_uid
            said[one.series_id] = f"{head}fits {one.role}, but series {other} was preferred"
        else:
            said[one.series_id] = f"{head}fits {one.role}, which another series was to fill; {text}"
    studies.tell_roles(tx, choice.rule.name, said)


def _why_missing(role: str, candidates: Sequence[Candidate]) -> str:
    of_role = [one for one in candidates if one.role == role]
    for one in of_role:
        if one.refusal:
            return f"series {one.series_instance_uid}, which fits {role}, is no volume ({bare(one.refusal)})"
    return f"no series of the study fits {role}" if not of_role else f"the series that fits {role} fills another role"


def _acquired_at(values: Mapping[str, Values]) -> str:
    for keys in _TIMES:
        parts = [str(values.get(key, ("",))[0] if values.get(key) else "").strip() for key in keys]
        if all(parts):
            return "".join(parts)[:32]
    return ""
