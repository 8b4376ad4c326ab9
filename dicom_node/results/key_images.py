"""The slices on which findings are largest, in colour, with the findings drawn over them."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results.analysis import Analysis
from dicom_node.results.drawn import draw_slice, key_slices
from dicom_node.results.header import series_description
from dicom_node.results.pictures import pictures


def build_key_images(analysis: Analysis) -> Dataset | None:
    """Write a frame for each key slice, with the findings on it alone; None when nothing was found."""
    origin, shown = analysis.origin, key_slices(analysis)
    if not shown:
        return None
    what = f"Key slices with the findings of {origin.card.name} {origin.algorithm_version}. {origin.statement}"
    return pictures(
        analysis,
        shown,
        lambda k: draw_slice(analysis, k, analysis.found),
        "key_images",
        7,
        series_description(origin, "key images"),
        what,
    )
