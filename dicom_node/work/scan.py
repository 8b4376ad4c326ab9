"""What a volume is, by its headers and its grid, as a card's conditions and calculations ask for it."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

from dicom_node.domain import codes
from dicom_node.domain.eligibility import Scan, scan_of
from dicom_node.domain.finding import Code
from dicom_node.multiframe import header_of as read_header
from dicom_node.volume import Volume

_ASKED_FOR = (
    *("Modality", "SliceThickness", "ConvolutionKernel", "ContrastBolusAgent"),
    *("PatientAge", "PatientBirthDate", "PatientSex", "SmokingStatus", "StudyDate"),
    "ViewPosition",
)


def describe(volume: Volume) -> Scan:
    """Describe a volume for its card's conditions."""
    a, b, c = (float(step) for step in volume.affine[2, :3])
    slices, rows, columns = volume.array.shape
    return scan_of(header_of(volume), (slices, rows, columns), volume.spacing_mm, (a, b, c))


def header_of(volume: Volume) -> dict[str, Any]:
    """Read what is asked for from the first slice."""
    return asked_for(volume.datasets[0])


def asked_for(header: Dataset) -> dict[str, Any]:
    """Read what is asked for; a value that cannot be read counts as absent."""
    return read_header(header, _ASKED_FOR)


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
