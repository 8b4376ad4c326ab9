"""Images that the model answered with as pictures that any viewer shows: multi-frame, grey, nothing written in them.

A parametric map holds the values as they are, and few viewers show one. Here each frame has 16 bits between the lowest
and the highest value and lies where its slice lies (PS3.3 A.8.4). The standard has no place for units in such an object
(its rescaling is the identity, C.8.6.3): they stand in words in Derivation Description.
"""

from __future__ import annotations

from io import BytesIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage
from pydicom.valuerep import DS

from dicom_node.domain.finding import Map
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.capture import carry_over
from dicom_node.results.header import (
    LO_LENGTH,
    fit,
    instance_attributes,
    plain_object,
    series_description,
)
from dicom_node.results.pictures import fill_frames, lay_frames
from dicom_node.results.proof import frames_of

_MOST = 65535
_FIRST = 40  # of the numbers of series


def build_grey(analysis: Analysis) -> list[Dataset]:
    """Write each image that the model gave; empty where it gave none."""
    return [_written(analysis, number, each) for number, each in enumerate(analysis.findings.maps, start=1)]


def prove_grey(data: bytes, analysis: Analysis) -> None:
    """Read pictures back: each frame lies where its slice lies, and holds what the model said, in its 65536 steps.

    Raises
    ------
    ResultError
        If one does not.
    """
    image = dcmread(BytesIO(data))
    maps = enumerate(analysis.findings.maps, start=1)
    said = next((each for n, each in maps if analysis.origin.uid(_part(n)) == str(image.SOPInstanceUID)), None)
    if said is None:
        raise ResultError("the picture is of no image that the model gave")
    values = analysis.image(said)
    scale = _scale(values)
    missing = set(range(len(values)))
    for frame, pixels in zip(frames_of(image, analysis, "picture"), iter_pixels(image), strict=True):
        if not np.array_equal(pixels, _stored(values[frame.slice], scale)):
            raise ResultError(f"frame {frame.index + 1} of the picture differs from what the model said")
        missing.discard(frame.slice)
    if missing:
        raise ResultError(f"the picture has no frame for {len(missing)} slices")


def _part(number: int) -> str:
    return f"grey/{number}"


def _written(analysis: Analysis, number: int, each: Map) -> Dataset:
    origin, values = analysis.origin, analysis.image(each)
    slope, low = _scale(values)
    attributes = instance_attributes(
        origin, _part(number), _FIRST + number, series_description(origin, fit(each.label, LO_LENGTH // 2))
    )
    image = plain_object(origin, MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "OT", attributes)
    made = f"{each.label} made by {origin.card.name} {origin.algorithm_version}: no acquisition"
    units = f"Value in {each.unit.meaning} = stored x {slope:.9g} + {low:.9g}"
    what = f"{made}. {units}. {origin.statement}"
    carry_over(image, origin, what, written=False)
    lay_frames(image, origin, range(len(values)))
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PresentationLUTShape = "IDENTITY"
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    center, width = each.window
    image.WindowCenter = DS((center - low) / slope, auto_format=True)
    image.WindowWidth = DS(max(width / slope, 1.0), auto_format=True)
    frames = [bytes(imagecodecs.jpegls_encode(_stored(plane, (slope, low)), level=0)) for plane in values]
    fill_frames(image, origin, analysis.shape[1:], frames)
    return image


def _stored(plane: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.uint16]:
    slope, low = scale
    return np.clip(np.rint((plane.astype(np.float64) - low) / slope), 0, _MOST).astype(np.uint16)


def _scale(values: NDArray[np.float32]) -> tuple[float, float]:
    """Slope and intercept that make values of stored ones."""
    low, high = float(values.min()), float(values.max())
    return (high - low) / _MOST or 1.0, low
