"""One image that stands alone -> its values as a model sees them: bright is bright, whatever the file calls white.

Rows stay rows and columns stay columns: nothing is turned, mirrored or scaled to another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from dicom_node.domain.header import numbers
from dicom_node.domain.job import JobInstance
from dicom_node.domain.model import ImageValues
from dicom_node.errors import GeometryError
from dicom_node.multiframe import header_of
from dicom_node.pixels import StoredImage
from dicom_node.spool import Spool
from dicom_node.volume import MOST_VOXELS, read_bytes

_ASKED_FOR = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_COLOURS = ("R", "G", "B")
_WHITE = 255.0
_SHOWN = (0.5, 99.5)  # percent of the pixels

Plane = NDArray[np.float32]


class Spacing(StrEnum):
    """Where the distance between pixels was measured."""

    PATIENT = "patient"  # Pixel Spacing: calibrated, or of a camera that says so
    DETECTOR = "detector"  # Imager Pixel Spacing: what is in the patient is smaller, by an unknown magnification
    UNKNOWN = ""


@dataclass(frozen=True, slots=True, eq=False)
class SingleImage:
    """One image as it was acquired.

    Attributes
    ----------
    planes : mapping of str to numpy.ndarray of float32, shape (rows, columns)
        One under an empty name for a grey image; R, G and B for one in colour, 0 to 255.
    header : pydicom.Dataset
        Everything but the pixels.
    spacing_mm : (float, float)
        Between rows, between columns; 1 where nobody knows.
    window : (float, float) or None
        Center and width that suit the values of a grey image after the Modality LUT, before any inversion.
    """

    planes: Mapping[str, Plane]
    header: Dataset
    spacing_mm: tuple[float, float]
    spacing: Spacing
    window: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        rows, columns = next(iter(self.planes.values())).shape
        return rows, columns


def load_image(spool: Spool, instance: JobInstance, values: ImageValues = ImageValues.MODALITY) -> SingleImage:
    """Read one instance.

    Raises
    ------
    SpoolError
        If the file is missing, unreadable, or not the bytes that were acknowledged.
    GeometryError
        If its pixels cannot be decoded, or do not have the size that the header says.
    """
    data = read_bytes(spool, instance)
    uid = instance.sop_instance_uid
    try:
        stored = StoredImage.of(data)
        header = stored.header
        size = (int(header.Rows), int(header.Columns))
        if size[0] * size[1] > MOST_VOXELS:
            raise GeometryError(f"{size[0]} x {size[1]} pixels are more than the {MOST_VOXELS} that are read.")
        window: tuple[float, float] | None = None
        if int(header.get("SamplesPerPixel") or 1) == len(_COLOURS):
            planes = _coloured(data)
        else:
            pixels = stored.stored_values()
            modality = np.asarray(apply_modality_lut(pixels, header), np.float64)
            padding = _padding(pixels, header)
            planes = {"": _grey(modality, padding, header, values)}
            window = _suiting(modality[~padding] if not padding.all() else modality)
    except GeometryError:
        raise
    except Exception as error:  # codecs and parsers throw everything at broken bytes; all of it is a refusal
        said = str(error).strip().splitlines() or [""]
        told = f"{type(error).__name__}: {said[0][:160]}"
        raise GeometryError(f"The pixels of instance {uid} cannot be decoded: {told}") from error
    if any(plane.shape != size for plane in planes.values()):
        raise GeometryError(f"The pixels of instance {uid} do not have the size {size} that its header says.")
    return SingleImage(planes, header, *_spacing(header), window)


def _coloured(data: bytes) -> dict[str, Plane]:
    """Red, green and blue, 0 to 255; pydicom turns YBR into them."""
    ds = dcmread(BytesIO(data))
    rgb = pixel_array(ds).astype(np.float32) * (_WHITE / ((1 << int(ds.BitsStored)) - 1))
    return {name: np.ascontiguousarray(rgb[..., n], np.float32) for n, name in enumerate(_COLOURS)}


def _suiting(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = (float(end) for end in np.percentile(values, _SHOWN))
    return (low + high) / 2, max(high - low, 1.0)


def _grey(modality: NDArray[np.float64], padding: NDArray[np.bool_], header: Dataset, values: ImageValues) -> Plane:
    if values is ImageValues.DISPLAY:
        shown = _WHITE * _displayed(modality, header, padding)
        low, high = 0.0, _WHITE
    else:
        shown = modality
        low, high = _range(header)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":  # PS3.3 C.7.6.3.1.2: the lowest value is white
        shown = low + high - shown
    if padding.any() and not padding.all():
        shown[padding] = shown[~padding].min()
    return shown.astype(np.float32)


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    """Where there is no image (PS3.3 C.7.5.1.1.2)."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high), np.bool_)


def _range(header: Dataset) -> tuple[float, float]:
    """Lowest and highest value that there can be, after the Modality LUT."""
    bits = int(header.BitsStored)
    ends = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if header.PixelRepresentation else (0, (1 << bits) - 1)
    low, high = np.asarray(apply_modality_lut(np.array(ends), header), np.float64)
    return float(low), float(high)


def _displayed(values: NDArray[np.float64], header: Dataset, padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Apply the first VOI LUT or window (PS3.3 C.11.2): 0 to 1; without one from the lowest value to the highest."""
    if luts := header.get("VOILUTSequence"):
        bits = int(luts[0].LUTDescriptor[2])
        return np.asarray(apply_voi(values.astype(np.int64), header), np.float64) / ((1 << bits) - 1)
    center, width = (header.get(keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        inside = values[~padding] if not padding.all() else values
        low, high = float(inside.min()), float(inside.max())
        return np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0)
    return _windowed(values, _first(center), _first(width), str(header.get("VOILUTFunction") or "LINEAR"))


def _windowed(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)), np.float64)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width <= 1:
        return np.asarray(values > center - 0.5, np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "__getitem__") else value)  # type: ignore[arg-type]


def _spacing(header: Dataset) -> tuple[tuple[float, float], Spacing]:
    kept = header_of(header, _ASKED_FOR)
    for keyword, where in zip(_ASKED_FOR, (Spacing.PATIENT, Spacing.DETECTOR, Spacing.DETECTOR), strict=True):
        found = numbers(kept, keyword, 2)
        if found and min(found) > 0:
            at_detector = keyword == "PixelSpacing" and found == numbers(kept, "ImagerPixelSpacing", 2)
            return (found[0], found[1]), Spacing.DETECTOR if at_detector else where
    return (1.0, 1.0), Spacing.UNKNOWN
