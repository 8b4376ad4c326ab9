"""Which audit events somebody wants to be told of, and in which words.

The words hold nothing of a patient and no UID, unless the rule says ``patient = true``: who gets a notification finds
the study by the job's id, in the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from string import Template
from typing import Any

from sqlalchemy import Connection, Row

from dicom_node.db.browse import results_of
from dicom_node.db.outbox import NewNotification, oldest_due_job, segments_of
from dicom_node.domain.audit import Event
from dicom_node.notify.report import NAME as REPORT
from dicom_node.notify.report import report_text, wants_report
from dicom_node.settings import NotifyRule
from dicom_node.spool import Spool

BACKLOG_AGAIN_S = 6 * 3600
SUBJECTS = {
    "finding": "$node: $model found something",
    "failure": "$node: $model failed",
    "not eligible": "$node: a series was not analysed",
    "delivery failed": "$node: a result could not be delivered",
    "backlog": "$node: jobs wait for $minutes minutes",
}
TEXTS = {
    "finding": "Job $job ($model, rule $routing) found: $findings.\n",
    "failure": "Job $job ($model, rule $routing) failed for good: $reason\n\ndicom-node explain $job\n",
    "not eligible": "Job $job ($model, rule $routing) has no result: $reason\n\ndicom-node explain $job\n",
    "delivery failed": "$kind of job $job could not be delivered to $destination: $reason\n\ndicom-node resend $job\n",
    "backlog": "The oldest job has waited for a worker for $minutes minutes.\n\nSELECT * FROM v_queue;\n",
}
PATIENT = "Patient ID $patient_id, accession number $accession, study $study.\n"

Rules = Mapping[str, NotifyRule]


@dataclass(frozen=True, slots=True)
class Occasion:
    """An event that somebody wants to be told of.

    Attributes
    ----------
    row : sqlalchemy.Row
        As `db.audit.read_chained` reads it.
    rules : mapping of str to NotifyRule
        Those that want it.
    segments : list of dict
        What the job marked, where it is told of a finding.
    report : str
        Where the job's report is in the spool, if a rule asks for it and there is one.
    """

    row: Row[Any]
    rules: Rules
    segments: list[dict[str, Any]]
    report: str


def of_event(tx: Connection, row: Row[Any], rules: Rules) -> Occasion | None:
    """Read what the rules say of an event, and what is known of it; None when nobody wants to be told."""
    on = _occasion(row)
    if on is None or (on == "finding" and not row.destinations):  # a shadow's findings are nobody's to act on
        return None
    wanted = {name: rule for name, rule in rules.items() if rule.on == on and _is_about(rule, row)}
    if not wanted:
        return None
    segments = segments_of(tx, row.job_id) if on == "finding" else []
    report = results_of(tx, row.job_id).get("sr") if any(map(wants_report, wanted.values())) else None
    return Occasion(row, wanted, segments, report.path if report is not None else "")


def in_words(one: Occasion, node: str, spool: Spool) -> Iterator[NewNotification]:
    """Write what is to be told, for each rule and channel that wants it. Files are read: no transaction may be open."""
    for name, rule in one.rules.items():
        found = [
            each for each in one.segments if str(each.get("label", "")).casefold().startswith(rule.label.casefold())
        ]
        if rule.on == "finding" and not found:
            continue
        values = _values(one.row, found, node)
        if wants_report(rule):
            values[REPORT] = report_text(one.report, spool, patient=rule.patient)
        yield from _for_channels(name, rule, f"event {one.row.id}", values, one.row.series_id, one.row.job_id)


def of_backlog(tx: Connection, now: datetime, rules: Rules, node: str) -> Iterator[NewNotification]:
    """Write what is to be told of jobs that wait too long: once in six hours while they do."""
    wanted = {name: rule for name, rule in rules.items() if rule.on == "backlog"}
    oldest = oldest_due_job(tx, now) if wanted else None
    if oldest is None:
        return
    age_s = (now - oldest).total_seconds()
    for name, rule in wanted.items():
        if age_s > rule.after_s:
            values = {"node": node, "minutes": f"{age_s / 60:.0f}"}
            since = int(now.timestamp() // BACKLOG_AGAIN_S)
            yield from _for_channels(name, rule, f"backlog {since}", values, None, None)


def _occasion(row: Row[Any]) -> str | None:
    if row.event == Event.JOB_COMPLETED:
        return "finding"
    if row.event == Event.JOB_FAILED:
        return "not eligible" if row.failure == "not eligible" else "failure"
    return "delivery failed" if row.event == Event.DELIVERY_FAILED else None


def _is_about(rule: NotifyRule, row: Row[Any]) -> bool:
    return (not rule.rules or row.rule in rule.rules) and (not rule.models or row.model in rule.models)


def _values(row: Row[Any], found: list[dict[str, Any]], node: str) -> dict[str, str]:
    labels = Counter(str(one.get("label", "")) for one in found)
    return {
        "node": node,
        "job": row.job_id[:8],
        "model": row.model,
        "routing": row.rule,
        "reason": str(row.detail.get("error") or ""),
        "destination": str(row.detail.get("destination") or ""),
        "kind": str(row.detail.get("kind") or "").upper(),
        "findings": ", ".join(f"{count} x {label}" if count > 1 else label for label, count in labels.items()),
        "patient_id": row.patient_id or "",
        "accession": row.accession_number or "",
        "study": row.study_instance_uid or "",
    }


def _for_channels(
    name: str, rule: NotifyRule, what: str, values: dict[str, str], series_id: str | None, job_id: str | None
) -> Iterator[NewNotification]:
    if not rule.patient:
        values = {key: value for key, value in values.items() if key not in ("patient_id", "accession", "study")}
    subject = Template(rule.subject or SUBJECTS[rule.on]).safe_substitute(values)
    text = Template(rule.text or TEXTS[rule.on] + (PATIENT if rule.patient else "")).safe_substitute(values)
    body = {"on": rule.on, "rule": name, "text": text, **values}
    for channel in rule.to:
        yield NewNotification(f"{name}/{channel}/{what}", name, channel, subject, body, series_id, job_id)
