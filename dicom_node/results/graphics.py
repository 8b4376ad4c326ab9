"""What is drawn over original images: outlines of findings and their names, a layer for each (PS3.3 C.10.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_node.domain.finding import Segment
from dicom_node.results.contours import Ring, halved, straightened
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    Origin,
    content_label,
    fit,
    instance_attributes,
    merged_references,
    plain_object,
    references,
    series_description,
)
from dicom_node.results.words import NOT_FOR_DIAGNOSIS, titled

_MOST_POINTS = 8_000  # GraphicData (FL) holds 16,383 numbers in an explicit VR (PS3.5 7.1.2)
_NOTICE = "NOTICE"


def begin_state(origin: Origin, part: str, findings: Sequence[Segment], shown: Sequence[Dataset]) -> Dataset:
    """Begin a Grayscale Softcopy Presentation State of some images of the series, with a layer for each finding.

    Parameters
    ----------
    part : str
        Names it among the results of the job.
    shown : sequence of pydicom.Dataset
        The images that it is for.
    """
    attributes = instance_attributes(origin, part, 6, series_description(origin, "outlines"))
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
    series = Dataset()
    series.SeriesInstanceUID = origin.slices[0].SeriesInstanceUID
    series.ReferencedImageSequence = merged_references(shown)
    state.ReferencedSeriesSequence = [series]
    return state


def layer_name(segment: Segment) -> str:
    """Name of the layer that a segment is drawn on: unique by its number."""
    return re.sub(r"[^A-Z0-9_ ]", "_", f"{segment.number} {segment.label.upper()}")[:16].strip()


def annotation(segment: Segment, image: Dataset, outlines: Sequence[Ring]) -> Dataset:
    """Outline a finding on one image, and name it beside the outline."""
    item = Dataset()
    item.ReferencedImageSequence = references([image])
    item.GraphicLayer = layer_name(segment)
    item.TextObjectSequence = [_text(segment, outlines)]
    shape = int(image.Rows), int(image.Columns)
    item.GraphicObjectSequence = [
        _polyline(segment, part) for ring in outlines for part in halved(straightened(ring), shape, _fits)
    ]
    return item


def notice() -> Dataset:
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


def whole_area(image: Dataset) -> Dataset:
    """Show an image whole (PS3.3 C.10.4): its pixels as large as it says, or square."""
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [int(image.Columns), int(image.Rows)]
    area.PresentationSizeMode = "SCALE TO FIT"
    sizes = (image.get(keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing"))
    if spacing := next((each for each in sizes if each and min(each) > 0), None):
        area.PresentationPixelSpacing = spacing
    else:
        area.PresentationPixelAspectRatio = [1, 1]
    return area


def _layer(order: int, name: str, segment: Segment | None = None) -> Dataset:
    item = Dataset()
    item.GraphicLayer, item.GraphicLayerOrder = name, order
    item.GraphicLayerRecommendedDisplayGrayscaleValue = 0xFFFF
    color = segment.color_rgb if segment else (255, 255, 255)
    item.GraphicLayerRecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*color).value)
    item.GraphicLayerDescription = fit(segment.label if segment else NOT_FOR_DIAGNOSIS, LO_LENGTH)
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


def _text(segment: Segment, outlines: Sequence[Ring]) -> Dataset:
    """Name a finding at the rightmost point of its outline."""
    points = np.concatenate(outlines)
    row, column = points[points[:, 1].argmax()]
    item = Dataset()
    item.AnchorPointAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = fit(titled(segment), 1024)
    item.AnchorPoint = [float(column) + 0.5, float(row) + 0.5]
    item.AnchorPointVisibility = "Y"
    return item
