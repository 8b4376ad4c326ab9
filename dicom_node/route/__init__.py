"""Routing: a complete series x the rules -> jobs, or the reason why there is none.

Runs inside the transaction that closes the series, so that a closed series always has its jobs or its reason. What
rules ask for of a file is read before it: `read_attributes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from dicom_node.catalog import Catalog
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.db.jobs import JobQueue
from dicom_node.db.routing import NewJob, insert_job, jobs_of_model, supersede_jobs
from dicom_node.db.series import ClosedSeries, StoredInstance, write_no_job_reason
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.candidate import Candidate
from dicom_node.domain.rule import Match, Rule, Values, match_rule
from dicom_node.domain.study import Verdict, chosen
from dicom_node.domain.uids import job_id
from dicom_node.route.ask import (
    ask_rules,
    ask_rules_of_file,
    ask_rules_of_header,
    first_slice,
    read_attributes,
    values_of,
)
from dicom_node.route.schedule import asked_priority, destinations_of, schedule, told_by
from dicom_node.route.study import StudyDesk, candidates_of, decide_overdue, route_study, route_study_again

__all__ = [
    "StudyDesk",
    "ask_rules",
    "ask_rules_of_file",
    "ask_rules_of_header",
    "decide_overdue",
    "read_attributes",
    "route_again",
    "route_series",
]


def route_series(
    tx: Connection,
    series: ClosedSeries,
    verdict: Verdict,
    attributes: Mapping[str, Values],
    catalog: Catalog,
    enqueuer: JobQueue,
    *,
    max_attempts: int,
) -> None:
    """Match a series with every rule; write and enqueue a job for each model that is wanted.

    Rules that want the same model make one job, which goes to the destinations of them all. A refused series gets its
    jobs too, failed from the start, and a report of each: somebody asked for a result and has to learn that there is
    none. Rules that want several series are asked with what else of the study is here. `attributes` are those that
    `read_attributes` read for the same rules.
    """
    first = first_slice(series, verdict)
    matches, wanted, fits = _wanted(series, verdict, first, attributes, catalog)
    taken = {model: chosen(verdict, catalog.models[model].volume) for model in wanted}
    jobs = [
        _new_job(series, taken[model], rules, catalog.models[model].version, first, max_attempts)
        for model, rules in wanted.items()
    ]
    _record_decision(tx, series, matches)
    for job in jobs:
        if insert_job(tx, job, series.closed_at):
            schedule(tx, job, enqueuer, taken[job.model].facts.get("volume"))
    supersede_jobs(tx, series.id, series.revision, {job.model: job.id for job in jobs}, series.closed_at)
    route_study(tx, series, fits, StudyDesk(catalog.rules, catalog.models, enqueuer, max_attempts))


def route_again(
    tx: Connection,
    series: ClosedSeries,
    verdict: Verdict,
    attributes: Mapping[str, Values],
    catalog: Catalog,
    enqueuer: JobQueue,
    *,
    max_attempts: int,
) -> None:
    """Match a complete series that came again with every rule; `series.origin` is how it came this time.

    Adds the jobs that these rules want beyond those that there are: of another model, or of the same one for other
    destinations. Nothing is taken back.
    """
    first = first_slice(series, verdict)
    matches, wanted, fits = _wanted(series, verdict, first, attributes, catalog)
    taken = {model: chosen(verdict, catalog.models[model].volume) for model in wanted}
    jobs = []
    for model, rules in wanted.items():
        runs, served = jobs_of_model(tx, series.id, series.revision, model)
        job = _new_job(series, taken[model], rules, catalog.models[model].version, first, max_attempts, run_no=runs + 1)
        left = tuple(name for name in job.destinations if name not in served)
        if not runs or left:
            told = tuple(name for name in job.report_to if name in left)
            jobs.append(replace(job, destinations=left, report_to=told))
    detail = {"called": series.origin["called_ae"], "from": series.origin["calling_ae"], "jobs": len(jobs)}
    detail |= {"revision": series.revision, "rules": [str(match) for match in matches]}
    record(tx, AuditEvent(Event.SERIES_CAME_AGAIN, series_id=series.id, detail=detail))
    if jobs:
        write_no_job_reason(tx, series.id, None)
    for job in jobs:
        if insert_job(tx, job, utc_now()):
            schedule(tx, job, enqueuer, taken[job.model].facts.get("volume"))
    desk = StudyDesk(catalog.rules, catalog.models, enqueuer, max_attempts)
    route_study_again(tx, series, fits, desk, utc_now())


def _wanted(
    series: ClosedSeries,
    verdict: Verdict,
    first: StoredInstance,
    attributes: Mapping[str, Values],
    catalog: Catalog,
) -> tuple[list[Match], dict[str, list[Rule]], dict[str, list[Candidate]]]:
    """Ask every rule: what each says, the rules that want each model, and by rule the roles that the series fits."""
    values = values_of(series, verdict, catalog.rules, attributes)
    matches = [match_rule(rule, values) for rule in catalog.rules]
    wanted: dict[str, list[Rule]] = {}
    fits: dict[str, list[Candidate]] = {}
    for rule, match in zip(catalog.rules, matches, strict=True):
        if match.roles:
            of_model = chosen(verdict, catalog.models[rule.model].volume)
            fits[rule.name] = candidates_of(series, of_model, match.roles, values, asked_priority(first))
        elif match.matched:
            wanted.setdefault(rule.model, []).append(rule)
    return matches, wanted, fits


def _new_job(
    series: ClosedSeries,
    verdict: Verdict,
    rules: list[Rule],
    version: str,
    first: StoredInstance,
    max_attempts: int,
    run_no: int = 1,
) -> NewJob:
    return NewJob(
        id=job_id(series.id, series.revision, rules[0].model, version, run_no),
        series_id=series.id,
        series_revision=series.revision,
        rule=rules[0].name,
        model=rules[0].model,
        model_version=version,
        destinations=destinations_of(rules),
        report_to=told_by(rules),
        slices=() if verdict.refusal else verdict.slices,
        note=None if verdict.refusal else series.lacking,
        priority=min(asked_priority(first), *(rule.priority for rule in rules)).value,
        max_attempts=max_attempts,
        error=verdict.refusal,
        run_no=run_no,
    )


def _record_decision(tx: Connection, series: ClosedSeries, matches: list[Match]) -> None:
    detail: dict[str, Any] = {"revision": series.revision, "rules": [str(match) for match in matches]}
    if any(match.matched for match in matches):
        record(tx, AuditEvent(Event.SERIES_ROUTED, series_id=series.id, detail=detail))
        return
    told = "; ".join(str(match) for match in matches)
    write_no_job_reason(tx, series.id, f"no rule matched: {told}" if matches else "there is no rule")
    record(tx, AuditEvent(Event.SERIES_UNMATCHED, series_id=series.id, detail=detail))
