"""Outlines and boxes over a grey image that stands alone (PS3.3 A.33.1), for viewers that show no SEG.

A presentation state scales all of its images alike and shows them in one size: each image has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.domain.finding import Segment
from dicom_node.domain.model import OutputKind
from dicom_node.results.contours import Ring, rings
from dicom_node.results.graphics import annotation, begin_state, notice, whole_area
from dicom_node.results.header import complete, copy_body_part
from dicom_node.results.single.analysed import AnalysedImage, Boxed, Images

_PAIRED = {"L", "R", "B"}  # of a part of the body that there are two of


def build_image_gsps(told: Images, image: AnalysedImage) -> Dataset | None:
    """Write what was marked in one image; None where nothing was, or where it is in colour."""
    if not image.marked or len(image.planes) > 1:
        return None
    origin, header = told.origin, told.header(image)
    drawn = list(drawings(image))
    state = begin_state(origin, f"{OutputKind.GSPS.value}/{image.number}", [each for each, _ in drawn], [header])
    state.SeriesInstanceUID = origin.uid("gsps/series")
    state.InstanceNumber = image.number
    state.GraphicAnnotationSequence = [*(annotation(each, header, outlines) for each, outlines in drawn), notice()]
    state.DisplayedAreaSelectionSequence = [whole_area(header)]
    with config.disable_value_validation():
        _scale(state, image.header)
        _window(state, image)
    inverse = image.header.get("PhotometricInterpretation") == "MONOCHROME1"
    state.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    copy_body_part(state, origin)
    if "Laterality" not in state and (side := _side(told.images)) is not None:
        state.Laterality = side
    complete(state, origin)
    return state


def drawings(image: AnalysedImage) -> Iterator[tuple[Segment, Sequence[Ring]]]:
    """Give what is drawn on an image, numbered from 1, with its outlines as `contours.rings` has them."""
    outlined = [(region.segment, rings(region.mask)) for region in image.present]
    for number, (segment, lines) in enumerate([*outlined, *((b.segment, [_ring(b)]) for b in image.boxes)], start=1):
        yield replace(segment, number=number), lines


def _side(images: Sequence[AnalysedImage]) -> str | None:
    """Which side the whole series shows (PS3.3 C.7.3.1): empty for both; None of what has no sides."""
    sides = {str(image.header.get("ImageLaterality") or "") for image in images}
    if not sides & _PAIRED:
        return None
    return sides.pop() if sides in ({"L"}, {"R"}) else ""


def _ring(boxed: Boxed) -> Ring:
    left, top, right, bottom = boxed.corners
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)], np.float64) - 0.5


def _scale(state: Dataset, header: Dataset) -> None:
    """Turn stored values into those of the modality as the image does (PS3.3 C.11.1)."""
    if header.get("ModalityLUTSequence"):
        state.ModalityLUTSequence = deepcopy(header.ModalityLUTSequence)
    elif header.get("RescaleSlope") is not None:
        state.RescaleSlope, state.RescaleIntercept = header.RescaleSlope, header.get("RescaleIntercept") or 0
        state.RescaleType = header.get("RescaleType") or "US"


def _window(state: Dataset, image: AnalysedImage) -> None:
    """Show the image as it wants to be shown: by its first VOI LUT or window; else in one that suits its values."""
    header, voi = image.header, Dataset()
    if luts := header.get("VOILUTSequence"):
        voi.VOILUTSequence = [deepcopy(luts[0])]
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        voi.WindowCenter, voi.WindowWidth = _first(header.WindowCenter), _first(header.WindowWidth)
        if function := header.get("VOILUTFunction"):
            voi.VOILUTFunction = function
    elif image.window is not None:
        voi.WindowCenter, voi.WindowWidth = (f"{value:.6g}" for value in image.window)
    else:
        return
    state.SoftcopyVOILUTSequence = [voi]


def _first(value: object) -> object:
    return value[0] if isinstance(value, MultiValue) else value
