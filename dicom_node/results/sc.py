"""The overview of a study as one Secondary Capture image, for whoever has no viewer for the rest."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results.analysis import Analysis
from dicom_node.results.capture import capture
from dicom_node.results.header import series_description
from dicom_node.results.page import draw_page


def build_sc(analysis: Analysis) -> Dataset:
    """Write the page that `page.draw_page` draws, whether or not anything was found: if not, it says where."""
    origin = analysis.origin
    what = f"Overview page drawn from the results of {origin.card.name} {origin.algorithm_version}. {origin.statement}"
    return capture(origin, draw_page(analysis), "sc", 4, series_description(origin, "overview"), what)
