"""What a volume is, by its headers and its grid, as a card's conditions and calculations ask for it."""

from __future__ import annotations

import logging
from typing import Any

from pydicom.multival import MultiValue

from dicom_node.domain.eligibility import Scan, scan_of
from dicom_node.volume import Volume

logger = logging.getLogger(__name__)

_ASKED_FOR = (
    *("Modality", "SliceThickness", "ConvolutionKernel", "ContrastBolusAgent"),
    *("PatientAge", "PatientBirthDate", "PatientSex", "SmokingStatus", "StudyDate"),
)


def describe(volume: Volume) -> Scan:
    """Describe a volume for its card's conditions."""
    a, b, c = (float(step) for step in volume.affine[2, :3])
    slices, rows, columns = volume.array.shape
    return scan_of(header_of(volume), (slices, rows, columns), volume.spacing_mm, (a, b, c))


def header_of(volume: Volume) -> dict[str, Any]:
    """Read what is asked for from the first slice; a value that cannot be read counts as absent."""
    header: dict[str, Any] = {}
    ds = volume.datasets[0]
    for keyword in _ASKED_FOR:
        try:
            value = ds.get(keyword)
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            logger.debug("%s of instance %s: %s", keyword, ds.get("SOPInstanceUID"), error)
            continue
        if value is not None:
            header[keyword] = [str(v) for v in value] if isinstance(value, MultiValue) else str(value)
    return header
