"""The report of a job in plain text, for a notification whose words ask for it."""

from __future__ import annotations

from string import Template

from dicom_node.errors import SpoolError
from dicom_node.settings import NotifyRule
from dicom_node.spool import Spool

NAME = "report"


def wants_report(rule: NotifyRule) -> bool:
    """Whether the words of a rule hold ``$report``."""
    return NAME in Template(rule.text).get_identifiers()


def report_text(path: str, spool: Spool, *, patient: bool) -> str:
    """Write a structured report as text; why there is none, where there is none.

    Parameters
    ----------
    path : str
        Where it is in the spool; empty when there is none.
    patient : bool
        Whether it may say whose it is. Without, nothing in it names the patient or the study.
    """
    from dicom_node.results.text import as_text, report_lines  # its libraries are slow to load, and few rules want it

    if not path:
        return "(no report)"
    try:
        return as_text(report_lines(spool.path(path).read_bytes(), patient=patient))
    except (OSError, SpoolError):
        return "(the report cannot be read)"
