"""From stored values to values with a unit (PS3.3 C.11.1), or a refusal where the unit would be a guess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.domain.geometry import count
from dicom_node.errors import GeometryError

# What is asked of a header, by keyword.
RESCALING = ("Modality", "RescaleSlope", "RescaleIntercept", "RescaleType")
_SCALE = {"RescaleSlope": 0x00281053, "RescaleIntercept": 0x00281052}
_EMPTY = (None, b"", "")
_HOUNSFIELD = ("", "HU", "US")  # Rescale Type (0028,1054) of CT values; US is "unspecified"
_HOUNSFIELD_UNITS = ("", "[hnsf'U]", "HU", "{HU}")  # of a Real World Value Mapping; the first is none


def rescale_of(ds: Dataset, name: str) -> tuple[float, float]:
    """Read slope and intercept of the Modality LUT Module.

    Parameters
    ----------
    ds : pydicom.Dataset
        Header of a slice or frame.
    name : str
        What a refusal calls it.

    Raises
    ------
    GeometryError
        If the unit of the values would be a guess.
    """
    if "ModalityLUTSequence" in ds:
        raise GeometryError(f"Instance {name} has a Modality LUT Sequence, which is not supported.")
    is_ct = ds.get("Modality") == "CT"
    if is_ct and (ds.get("RescaleSlope") is None or ds.get("RescaleIntercept") is None):
        raise GeometryError(f"CT instance {name} without Rescale Slope and Intercept: its values are in no known unit.")
    kind = str(ds.get("RescaleType") or "").strip().upper()
    if is_ct and kind not in _HOUNSFIELD:
        raise GeometryError(f"The values of CT instance {name} are in {kind}, not in Hounsfield units.")
    if is_ct and (unit := _mapped_unit(ds)) not in _HOUNSFIELD_UNITS:
        raise GeometryError(f"The values of CT instance {name} stand for {unit}, not for Hounsfield units.")
    slope, intercept = (_number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0))
    if not math.isfinite(slope) or not math.isfinite(intercept) or slope == 0:
        told = f"Rescale Slope {slope:g} and Intercept {intercept:g}"
        raise GeometryError(f"Instance {name} has {told}, which cannot be.")
    return slope, intercept


def check_scales(headers: Sequence[Dataset]) -> None:
    """Refuse a volume of which some slices are rescaled and others are not: one of the two is a mistake.

    Raises
    ------
    GeometryError
        With the attribute, and in how many slices it is missing.
    """
    for keyword, tag in _SCALE.items():
        without = sum(tag not in ds or ds.get_item(tag).value in _EMPTY for ds in headers)
        if 0 < without < len(headers):
            raise GeometryError(
                f"{without} of {count(len(headers), 'slice')} without {keyword}, which the others have."
            )


def rescale_into(place: NDArray[np.float32], stored: NDArray[Any], slope: float, intercept: float) -> None:
    """Write rescaled values to their place, calculated in 32 bits whatever the stored ones have."""
    if slope == 1 and stored.dtype.itemsize <= 2:  # exact as float32: one pass does both
        np.add(stored, np.float32(intercept), out=place)
        return
    place[...] = stored
    if slope != 1:
        place *= np.float32(slope)
    place += np.float32(intercept)


def _mapped_unit(ds: Dataset) -> str:
    """Unit of the Real World Value Mapping of a frame (PS3.3 C.7.6.16.2.11): perfusion is no density."""
    units = ds.get("MeasurementUnitsCodeSequence") or []
    return str(units[0].get("CodeValue") or "") if units else ""


def _number(ds: Dataset, keyword: str, default: float) -> float:
    value = ds.get(keyword)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan
