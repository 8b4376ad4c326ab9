"""Single images whose content is known: a bright bar high on the right of the picture, a block low on the left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 61, 83
BAR = np.s_[7:19, 55:79]  # rows, columns
BLOCK = np.s_[40:52, 9:16]
BAR_VALUE, BLOCK_VALUE, GROUND = 3000, 2200, 300
_CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "OP": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
}
_SPECIFIC: dict[str, dict[str, Any]] = {
    "CR": {"ViewPosition": "PA", "BodyPartExamined": "CHEST", "PatientOrientation": ["L", "F"]},
    "DX": {
        "ViewPosition": "PA",
        "ImageLaterality": "U",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [0.5, 0.25],
        "PresentationIntentType": "FOR PRESENTATION",
    },
    "MG": {
        "ViewPosition": "MLO",
        "ImageLaterality": "R",
        "PatientOrientation": ["P", "F"],
        "ImagerPixelSpacing": [0.1, 0.07],
        "PixelSpacing": [0.09, 0.063],
        "PresentationIntentType": "FOR PRESENTATION",
        "BodyPartExamined": "BREAST",
    },
    "US": {},
    "OP": {"ImageLaterality": "L"},
}


def marks(rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.bool_]:
    """Where bar and block are."""
    found = np.zeros((rows, columns), np.bool_)
    found[BAR] = found[BLOCK] = True
    return found


def single_image(
    folder: Path,
    kind: str,
    *,
    number: int = 1,
    series: str = "",
    study: str = "",
    white_is_low: bool = False,
    **changes: Any,
) -> Path:
    """Write one image: a modality of radiography as 12 bits of grey, US and OP in colour.

    `white_is_low` writes it as MONOCHROME1; it looks the same.
    """
    rows, columns = changes.pop("Rows", ROWS), changes.pop("Columns", COLUMNS)
    values = np.full((rows, columns), GROUND, np.uint16)
    values[BAR], values[BLOCK] = BAR_VALUE, BLOCK_VALUE
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = _CLASSES[kind], generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study or generate_uid(), series or generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P-2D", "19610203", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260102", "101112", "S1", "A2D"
    ds.ReferringPhysicianName = ""
    ds.SeriesNumber, ds.InstanceNumber, ds.Modality = 3, number, kind
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.Manufacturer, ds.ManufacturerModelName = "ACME", "Camera"
    ds.Rows, ds.Columns = rows, columns
    if kind in ("US", "OP"):
        _colour(ds, values)
    else:
        _grey(ds, values, white_is_low=white_is_low)
    for keyword, value in {**_SPECIFIC[kind], **changes}.items():
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, value)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}{number}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def _grey(ds: Dataset, values: NDArray[np.uint16], *, white_is_low: bool) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if white_is_low else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (4095 - values if white_is_low else values).tobytes()


def _colour(ds: Dataset, values: NDArray[np.uint16]) -> None:
    """Bar and block are red, the ground is blue."""
    rgb = np.zeros((*values.shape, 3), np.uint8)
    rgb[..., 0] = np.where(values == GROUND, 10, 250)
    rgb[..., 2] = np.where(values == GROUND, 90, 20)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = rgb.tobytes() + b"\0" * (rgb.size % 2)
