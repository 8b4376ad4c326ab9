"""Outlines and names of the findings over the original images (PS3.3 A.33.1), for viewers that show no SEG."""

from __future__ import annotations

import re

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_node.domain.finding import Segment
from dicom_node.results.analysis import Analysis
from dicom_node.results.contours import Ring, halved, slices, straightened
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    complete,
    content_label,
    copy_body_part,
    fit,
    instance_attributes,
    merged_references,
    plain_object,
    references,
    series_description,
)
from dicom_node.results.page import window
from dicom_node.results.words import NOT_FOR_DIAGNOSIS, titled

_MOST_POINTS = 8_000  # GraphicData (FL) holds 16,383 numbers in an explicit VR (PS3.5 7.1.2)
_NOTICE = "NOTICE"


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
    attributes = instance_attributes(origin, "gsps", 6, series_description(origin, "outlines"))
    del attributes["content_date"], attributes["content_time"]
    state = plain_object(origin, GrayscaleSoftcopyPresentationStateStorage, "PR", attributes)
    state.ContentLabel = content_label(origin)
    state.ContentDescription = fit(f"{origin.card.title} {RESEARCH_ONLY}", LO_LENGTH)
    state.ContentCreatorName = ""
    state.PresentationCreationDate, state.PresentationCreationTime = state.SeriesDate, state.SeriesTime
    state.GraphicLayerSequence = [
        *(_layer(order, layer_name(each), each) for order, each in enumerate(findings, start=1)),
        _layer(len(findings) + 1, _NOTICE),
    ]
    outlined = {each.number: dict(slices(analysis.crop(each.output))) for each in findings}
    shown = sorted({k for of_one in outlined.values() for k in of_one})
    series = Dataset()
    series.SeriesInstanceUID = origin.slices[0].SeriesInstanceUID
    series.ReferencedImageSequence = merged_references([origin.slices[k] for k in shown])
    state.ReferencedSeriesSequence = [series]
    state.GraphicAnnotationSequence = [
        _annotation(each, origin.slices[k], outlined[each.number][k])
        for each in findings
        for k in sorted(outlined[each.number])
    ]
    state.GraphicAnnotationSequence.append(_notice())
    _present(state, analysis)
    copy_body_part(state, origin)
    complete(state, origin)
    return state


def layer_name(segment: Segment) -> str:
    """Name of the layer that a segment is drawn on: unique by its number."""
    return re.sub(r"[^A-Z0-9_ ]", "_", f"{segment.number} {segment.label.upper()}")[:16].strip()


def _layer(order: int, name: str, segment: Segment | None = None) -> Dataset:
    item = Dataset()
    item.GraphicLayer, item.GraphicLayerOrder = name, order
    item.GraphicLayerRecommendedDisplayGrayscaleValue = 0xFFFF
    color = segment.color_rgb if segment else (255, 255, 255)
    item.GraphicLayerRecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*color).value)
    item.GraphicLayerDescription = fit(segment.label if segment else NOT_FOR_DIAGNOSIS, LO_LENGTH)
    return item


def _annotation(segment: Segment, image: Dataset, outlines: list[Ring]) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = references([image])
    item.GraphicLayer = layer_name(segment)
    item.TextObjectSequence = [_text(segment, outlines)]
    shape = int(image.Rows), int(image.Columns)
    item.GraphicObjectSequence = [
        _polyline(segment, part) for ring in outlines for part in halved(straightened(ring), shape, _fits)
    ]
    return item


def _fits(ring: Ring) -> bool:
    return len(ring) < _MOST_POINTS


def _polyline(segment: Segment, ring: Ring) -> Dataset:
    """Draw a closed line: column and row, from 0 at the outer corner of the first pixel (PS3.3 C.10.5.1.2)."""
    points = np.concatenate([ring, ring[:1]])[:, ::-1] + 0.5
    item = Dataset()
    item.GraphicAnnotationUnits, item.GraphicDimensions = "PIXEL", 2
    item.NumberOfGraphicPoints = len(points)
    item.GraphicData = points.ravel().tolist()
    item.GraphicType, item.GraphicFilled = "POLYLINE", "N"
    item.TrackingID, item.TrackingUID = segment.tracking_id, segment.tracking_uid
    return item


def _text(segment: Segment, outlines: list[Ring]) -> Dataset:
    """Name a finding at the rightmost point of its outline."""
    points = np.concatenate(outlines)
    row, column = points[points[:, 1].argmax()]
    item = Dataset()
    item.AnchorPointAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = fit(titled(segment), 1024)
    item.AnchorPoint = [float(column) + 0.5, float(row) + 0.5]
    item.AnchorPointVisibility = "Y"
    return item


def _notice() -> Dataset:
    """Say on every image what it is not for."""
    text = Dataset()
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.UnformattedTextValue = NOT_FOR_DIAGNOSIS
    text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner = [0.2, 0.95], [0.8, 0.99]
    text.BoundingBoxTextHorizontalJustification = "CENTER"
    item = Dataset()
    item.GraphicLayer = _NOTICE
    item.TextObjectSequence = [text]
    return item


def _present(state: Dataset, analysis: Analysis) -> None:
    """Show whole images in the window that suits what was looked for, scaled as they are."""
    header, image = analysis.volume.datasets[0], analysis.origin.slices[0]
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [int(image.Columns), int(image.Rows)]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelSpacing = image.PixelSpacing
    state.DisplayedAreaSelectionSequence = [area]
    if header.get("RescaleSlope") is not None:
        state.RescaleIntercept = header.get("RescaleIntercept") or 0
        state.RescaleSlope = header.RescaleSlope
        state.RescaleType = "HU" if image.Modality == "CT" else "US"
    center, width = window(analysis)
    voi = Dataset()
    voi.WindowCenter, voi.WindowWidth = f"{center:g}", f"{width:g}"
    state.SoftcopyVOILUTSequence = [voi]
    state.PresentationLUTShape = "INVERSE" if header.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
