"""The slices with findings as single pictures, for archives that take no more than one frame in an object."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.results.analysis import Analysis
from dicom_node.results.capture import capture
from dicom_node.results.drawn import draw_slice, key_slices
from dicom_node.results.header import references, series_description

MOST_CAPTURES = 60  # each is an object of its own, sent and proven on its own


def build_captures(analysis: Analysis) -> list[Dataset]:
    """Write a Secondary Capture image for each slice with a finding; empty when nothing was marked.

    Of many slices, `MOST_CAPTURES` evenly spread ones are shown, those where a finding is largest among them. A model
    that marks organs alone has those of its organs, and one that answers with an image those of the image.
    """
    origin, segments = analysis.origin, analysis.findings.present
    what = f"Slice with the outlines of {origin.card.name} {origin.algorithm_version}. {origin.statement}"
    made = []
    for k in shown_slices(analysis):
        picture = draw_slice(analysis, k, segments)
        image = capture(origin, picture, f"captures/{k}", 15, series_description(origin, "slices"), what)
        image.SeriesInstanceUID = origin.uid("captures/series")
        image.InstanceNumber = k + 1
        image.SourceImageSequence = references([origin.slices[k]])
        made.append(image)
    return made


def shown_slices(analysis: Analysis) -> list[int]:
    """Choose the slices, in their order."""
    marked = sorted({*_marked(analysis), *(point.slice for point in analysis.findings.points)})
    if analysis.pictured is not None:
        marked = list(range(analysis.shape[0]))
    if len(marked) <= MOST_CAPTURES:
        return marked
    key = key_slices(analysis)
    rest = [k for k in marked if k not in key]
    spread = np.linspace(0, len(rest) - 1, MOST_CAPTURES - len(key)).round().astype(int)
    return sorted({*key, *(rest[n] for n in spread)})


def _marked(analysis: Analysis) -> set[int]:
    found: set[int] = set()
    for segment in analysis.found or analysis.findings.present:
        crop = analysis.crop(segment.output)
        found |= {crop.start[0] + int(n) for n in np.flatnonzero(crop.voxels.any(axis=(1, 2)))}
    return found
