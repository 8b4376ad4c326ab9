"""Outlines and names of the findings over the original images (PS3.3 A.33.1), for viewers that show no SEG."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results.analysis import Analysis
from dicom_node.results.contours import slices
from dicom_node.results.graphics import annotation, begin_state, notice, whole_area
from dicom_node.results.header import complete, copy_body_part
from dicom_node.results.page import window


def build_gsps(analysis: Analysis) -> Dataset | None:
    """Write the outline of each finding on each image that shows it, and its name beside it.

    Returns
    -------
    pydicom.Dataset or None
        A layer for each finding, in its colour. It refers to the images with findings alone. None when nothing was
        found, or when the images are scaled differently: a presentation state scales all of its images alike.
    """
    origin, findings = analysis.origin, analysis.found
    scales = {(header.get("RescaleSlope"), header.get("RescaleIntercept")) for header in analysis.volume.datasets}
    if not findings or len(scales) > 1:
        return None
    outlined = {each.number: dict(slices(analysis.crop(each.output))) for each in findings}
    shown = sorted({k for of_one in outlined.values() for k in of_one})
    state = begin_state(origin, "gsps", findings, [origin.slices[k] for k in shown])
    state.GraphicAnnotationSequence = [
        annotation(each, origin.slices[k], outlined[each.number][k])
        for each in findings
        for k in sorted(outlined[each.number])
    ]
    state.GraphicAnnotationSequence.append(notice())
    _present(state, analysis)
    copy_body_part(state, origin)
    complete(state, origin)
    return state


def _present(state: Dataset, analysis: Analysis) -> None:
    """Show whole images in the window that suits what was looked for, scaled as they are."""
    header, image = analysis.volume.datasets[0], analysis.origin.slices[0]
    state.DisplayedAreaSelectionSequence = [whole_area(image)]
    if header.get("RescaleSlope") is not None:
        state.RescaleIntercept = header.get("RescaleIntercept") or 0
        state.RescaleSlope = header.RescaleSlope
        state.RescaleType = "HU" if image.Modality == "CT" else "US"
    center, width = window(analysis)
    voi = Dataset()
    voi.WindowCenter, voi.WindowWidth = f"{center:g}", f"{width:g}"
    state.SoftcopyVOILUTSequence = [voi]
    state.PresentationLUTShape = "INVERSE" if header.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
