"""Routing: a complete series x the rules -> jobs, or the reason why there is none.

Runs inside the transaction that closes the series, so that a closed series always has its jobs or its reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from sqlalchemy import Connection

from dicom_node.catalog import Catalog
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.db.jobs import JobQueue
from dicom_node.db.reports import ask_for_report
from dicom_node.db.routing import NewJob, insert_job, jobs_of_model, supersede_jobs
from dicom_node.db.series import ClosedSeries, StoredInstance, write_no_job_reason
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.header import texts
from dicom_node.domain.job import Priority
from dicom_node.domain.rule import FACTS, Match, Rule, Scalar, Values, match_rule
from dicom_node.domain.study import HEADER, Verdict, chosen
from dicom_node.domain.uids import job_id
from dicom_node.errors import SpoolError
from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_ASKED = {"STAT": Priority.STAT, "HIGH": Priority.HIGH}  # Requested Procedure Priority (0040,1003)


def route_series(
    tx: Connection,
    series: ClosedSeries,
    verdict: Verdict,
    catalog: Catalog,
    enqueuer: JobQueue,
    spool: Spool,
    *,
    max_attempts: int,
) -> None:
    """Match a series with every rule; write and enqueue a job for each model that is wanted.

    Rules that want the same model make one job, which goes to the destinations of them all. A refused series gets its
    jobs too, failed from the start, and a report of each: somebody asked for a result and has to learn that there is
    none.
    """
    first = _first_slice(series, verdict)
    matches, wanted = _wanted(series, verdict, first, catalog, spool)
    taken = {model: chosen(verdict, catalog.models[model].volume) for model in wanted}
    jobs = [
        _new_job(series, taken[model], rules, catalog.models[model].version, first, max_attempts)
        for model, rules in wanted.items()
    ]
    _record_decision(tx, series, matches, jobs)
    for job in jobs:
        if insert_job(tx, job, series.closed_at):
            _schedule(tx, job, enqueuer, taken[job.model].facts.get("volume"))
    supersede_jobs(tx, series.id, series.revision, {job.model: job.id for job in jobs}, series.closed_at)


def route_again(
    tx: Connection,
    series: ClosedSeries,
    verdict: Verdict,
    catalog: Catalog,
    enqueuer: JobQueue,
    spool: Spool,
    *,
    max_attempts: int,
) -> None:
    """Match a complete series that came again with every rule; `series.origin` is how it came this time.

    Adds the jobs that these rules want beyond those that there are: of another model, or of the same one for other
    destinations. Nothing is taken back.
    """
    first = _first_slice(series, verdict)
    matches, wanted = _wanted(series, verdict, first, catalog, spool)
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
            _schedule(tx, job, enqueuer, taken[job.model].facts.get("volume"))


def ask_rules(series: ClosedSeries, verdict: Verdict, rules: Iterable[Rule], spool: Spool) -> list[Match]:
    """Compare a series with rules, as routing does; nothing comes of it."""
    asked = list(rules)
    values = _values(series, verdict, _first_slice(series, verdict), asked, spool)
    return [match_rule(rule, values) for rule in asked]


def ask_rules_of_file(ds: Dataset, facts: Mapping[str, Values], rules: Iterable[Rule]) -> list[Match]:
    """Compare one data set, with what is said of its series, with rules."""
    asked = list(rules)
    keys = {key for rule in asked for key in rule.keys} - {*FACTS}
    values = {**{key: _of_data_set(ds, key) for key in keys}, **facts}
    return [match_rule(rule, values) for rule in asked]


def ask_rules_of_header(
    header: Mapping[str, Any], path: str, facts: Mapping[str, Values], rules: Iterable[Rule], spool: Spool
) -> list[Match]:
    """Compare what is kept of one instance, with what is said of its series, with rules."""
    asked = list(rules)
    keys = {key for rule in asked if rule.enabled for key in rule.keys} - {*FACTS}
    kept = {key: _scalars(header.get(key)) for key in keys & {*HEADER}}
    read = _read(StoredInstance("", path, dict(header)), keys - {*HEADER}, spool)
    return [match_rule(rule, {**kept, **read, **facts}) for rule in asked]


def _of_data_set(ds: Dataset, keyword: str) -> Values:
    try:
        return _scalars(ds.get(keyword))
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return ()


def _wanted(
    series: ClosedSeries, verdict: Verdict, first: StoredInstance, catalog: Catalog, spool: Spool
) -> tuple[list[Match], dict[str, list[Rule]]]:
    """Ask every rule: what each says, and the rules that want each model."""
    values = _values(series, verdict, first, catalog.rules, spool)
    matches = [match_rule(rule, values) for rule in catalog.rules]
    wanted: dict[str, list[Rule]] = {}
    for rule, match in zip(catalog.rules, matches, strict=True):
        if match.matched:
            wanted.setdefault(rule.model, []).append(rule)
    return matches, wanted


def _first_slice(series: ClosedSeries, verdict: Verdict) -> StoredInstance:
    by_uid = {instance.sop_instance_uid: instance for instance in series.instances}
    return by_uid[verdict.slices[0]] if verdict.slices else series.instances[0]


def _values(
    series: ClosedSeries, verdict: Verdict, first: StoredInstance, rules: Iterable[Rule], spool: Spool
) -> dict[str, Values]:
    """Everything that the rules ask for, of the first slice of the volume."""
    keys = {key for rule in rules if rule.enabled for key in rule.keys}
    facts = {key: (verdict.facts[key],) for key in FACTS if key in verdict.facts}
    return {
        **{key: _scalars(first.header.get(key)) for key in keys & {*HEADER}},
        **_read(first, keys - {*HEADER} - {*FACTS}, spool),
        **facts,
        **series.origin,
    }


def _read(first: StoredInstance, keywords: set[str], spool: Spool) -> Mapping[str, Values]:
    """Attributes that are not kept in the row, from the file. What cannot be read counts as absent."""
    if not keywords:
        return {}
    try:
        ds = dcmread(spool.path(first.path), stop_before_pixels=True, specific_tags=sorted(keywords))
        return {keyword: _scalars(ds.get(keyword)) for keyword in keywords}
    except (SpoolError, InvalidDicomError, OSError, ValueError, AttributeError, NotImplementedError) as error:
        logger.warning("instance %s: attributes for the rules cannot be read: %s", first.sop_instance_uid, error)
        return {}


def _scalars(value: Any) -> Values:
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return tuple(_scalar(v) for v in values if v is not None and str(v).strip(" \0"))


def _scalar(value: Any) -> Scalar:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def _new_job(
    series: ClosedSeries,
    verdict: Verdict,
    rules: list[Rule],
    version: str,
    first: StoredInstance,
    max_attempts: int,
    run_no: int = 1,
) -> NewJob:
    asked = [
        _ASKED[word.upper()] for word in texts(first.header, "RequestedProcedurePriority") if word.upper() in _ASKED
    ]
    return NewJob(
        id=job_id(series.id, series.revision, rules[0].model, version, run_no),
        series_id=series.id,
        series_revision=series.revision,
        rule=rules[0].name,
        model=rules[0].model,
        model_version=version,
        destinations=_destinations(rules),
        report_to=_destinations(rule for rule in rules if rule.report_failures),
        slices=() if verdict.refusal else verdict.slices,
        note=None if verdict.refusal else series.lacking,
        priority=min([rule.priority for rule in rules] + asked).value,
        max_attempts=max_attempts,
        error=verdict.refusal,
        run_no=run_no,
    )


def _destinations(rules: Iterable[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for rule in rules for name in rule.destinations))


def _record_decision(tx: Connection, series: ClosedSeries, matches: list[Match], jobs: list[NewJob]) -> None:
    detail: dict[str, Any] = {"revision": series.revision, "rules": [str(match) for match in matches]}
    if jobs:
        record(tx, AuditEvent(Event.SERIES_ROUTED, series_id=series.id, detail=detail))
        return
    told = "; ".join(str(match) for match in matches)
    write_no_job_reason(tx, series.id, f"no rule matched: {told}" if matches else "there is no rule")
    record(tx, AuditEvent(Event.SERIES_UNMATCHED, series_id=series.id, detail=detail))


def _schedule(tx: Connection, job: NewJob, enqueuer: JobQueue, volume: Mapping[str, str] | None) -> None:
    detail: dict[str, Any] = {"model": job.model, "version": job.model_version, "rule": job.rule}
    if job.error:
        event = AuditEvent(
            Event.JOB_FAILED, series_id=job.series_id, job_id=job.id, detail={**detail, "error": job.error}
        )
        ask_for_report(tx, job.id, enqueuer)
    else:
        detail |= {"priority": Priority(job.priority).name, "destinations": list(job.destinations)}
        detail |= {"note": job.note} if job.note else {}
        detail |= {"volume": dict(volume)} if volume else {}
        event = AuditEvent(Event.JOB_SCHEDULED, series_id=job.series_id, job_id=job.id, detail=detail)
        enqueuer.job(tx, job.id, 1, priority=job.priority)
    record(tx, event)
