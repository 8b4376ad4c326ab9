"""The report of a job in plain text, for a notification whose words ask for it."""

from __future__ import annotations

from string import Template

from sqlalchemy import Connection

from dicom_node.db.browse import results_of
from dicom_node.errors import SpoolError
from dicom_node.settings import NotifyRule
from dicom_node.spool import Spool

NAME = "report"


def wants_report(rule: NotifyRule) -> bool:
    """Whether the words of a rule hold ``$report``."""
    return NAME in Template(rule.text).get_identifiers()


def report_text(tx: Connection, job_id: str, spool: Spool, *, patient: bool) -> str:
    """Write the structured report of a job as text; why there is none, where there is none.

    Parameters
    ----------
    patient : bool
        Whether it may say whose it is. Without, nothing in it names the patient or the study.
    """
    from dicom_node.results.text import as_text, report_lines  # its libraries are slow to load, and few rules want it

    made = results_of(tx, job_id).get("sr")
    if made is None:
        return "(no report)"
    try:
        return as_text(report_lines(spool.path(made.path).read_bytes(), patient=patient))
    except (OSError, SpoolError):
        return "(the report cannot be read)"
