"""The whole series in colour with everything drawn over it, for viewers that show pictures alone."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results.analysis import Analysis
from dicom_node.results.drawn import draw_slice
from dicom_node.results.header import series_description
from dicom_node.results.pictures import pictures


def build_overlay(analysis: Analysis) -> Dataset | None:
    """Write every slice of the source with the outlines of all that was marked; None when nothing was.

    Of a model that marks nothing and answers with an image, every slice of that.
    """
    origin, segments = analysis.origin, analysis.findings.present
    if not segments and analysis.pictured is None:
        return None
    what = f"Slices with the outlines of {origin.card.name} {origin.algorithm_version}. {origin.statement}"
    return pictures(
        analysis,
        range(len(origin.slices)),
        lambda k: draw_slice(analysis, k, segments),
        "overlay",
        8,
        series_description(origin, "overlay"),
        what,
    )
