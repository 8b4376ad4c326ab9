"""What a volume is, by its headers and its grid, as a card's conditions and calculations ask for it."""

from __future__ import annotations

import logging
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from dicom_node.domain import codes
from dicom_node.domain.eligibility import Scan, scan_of
from dicom_node.domain.finding import Code
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


def family_history(volume: Volume) -> bool | None:
    """Read whether lung cancer runs in the family: a coded answer in Acquisition Context Sequence (0040,0555).

    Returns
    -------
    bool or None
        None where nobody asked; free text is not read.
    """
    for item in volume.datasets[0].get("AcquisitionContextSequence") or ():
        if _coded(item, "ConceptNameCodeSequence") == _key(codes.FAMILY_HISTORY):
            return {_key(codes.YES): True, _key(codes.NO): False}.get(_coded(item, "ConceptCodeSequence"))
    return None


def _coded(item: Dataset, keyword: str) -> tuple[str, str]:
    named = item.get(keyword) or [Dataset()]
    return str(named[0].get("CodeValue", "")), str(named[0].get("CodingSchemeDesignator", ""))


def _key(code: Code) -> tuple[str, str]:
    return code.value, code.scheme
