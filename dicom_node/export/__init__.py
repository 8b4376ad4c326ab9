"""A file for a bug report: what the node knows of a series, with nothing of the patient (PS3.15 annex E)."""

from dicom_node.export.deidentify import Dates, Deidentifier, Keep
from dicom_node.export.report import Wanted, export_report

__all__ = ["Dates", "Deidentifier", "Keep", "Wanted", "export_report"]
