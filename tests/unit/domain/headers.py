"""Headers of a made-up series for the tests of the domain: a regular stack that each test spoils in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dicom_node.domain.study import Slice

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def header(position: Sequence[float], **changes: Any) -> dict[str, Any]:
    """One CT slice; None takes an attribute away."""
    whole = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "FrameOfReferenceUID": "1.2.3.5",
        "PatientID": "P1",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": "512",
        "Columns": 512,
        "SamplesPerPixel": 1,
        "PixelSpacing": ["0.7", "0.7"],
        "ImageOrientationPatient": [str(v) for v in AXIAL],
        "ImagePositionPatient": [f"{v:.6f}" for v in position],
        **changes,
    }
    return {keyword: value for keyword, value in whole.items() if value is not None}


def stack(
    n: int = 20, spacing_mm: float = 2.5, orientation: Sequence[float] = AXIAL, **changes: Any
) -> list[dict[str, Any]]:
    """Headers along the normal, ascending, with instance numbers in the same order."""
    a, b = orientation[:3], orientation[3:]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    told = {"ImageOrientationPatient": [str(v) for v in orientation], **changes}
    return [
        header([start + k * spacing_mm * v for start, v in zip((-170.0, -180.0, -300.0), normal, strict=True)], **told)
        | {"InstanceNumber": str(k + 1)}
        for k in range(n)
    ]


def instances(headers: Sequence[dict[str, Any]]) -> list[Slice]:
    """As assembly gives them to examination; the UIDs tell the order of `headers`."""
    return [Slice(f"1.9.{k + 1}", one) for k, one in enumerate(headers)]
