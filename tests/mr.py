"""Small series of one MR study, told apart as real ones are: by their description and by contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import MRImageStorage, generate_uid

from tests.ct import small_ct


class Study:
    """One study; its series share a frame of reference."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uid, self.frame = str(generate_uid()), str(generate_uid())

    def series(
        self, description: str, *, at: str = "100000", contrast: bool = False, slices: int = 6, **geometry: Any
    ) -> list[Path]:
        """Write a series that was acquired at this time of the day; `geometry` as `small_ct` takes it."""
        change = geometry.pop("change", lambda number, ds: ds)

        def as_mr(number: int, ds: Dataset) -> Dataset | None:
            ds.StudyInstanceUID, ds.FrameOfReferenceUID, ds.AccessionNumber = self.uid, self.frame, "MR7"
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
            ds.Modality, ds.SeriesDescription = "MR", description
            ds.AcquisitionDate, ds.AcquisitionTime = "20260105", at
            if contrast:
                ds.ContrastBolusAgent = "GADOVIST"
            changed: Dataset | None = change(number, ds)
            return changed

        size = {"rows": 16, "columns": 16, **geometry}
        return small_ct(self.folder / generate_uid()[-8:], slices=slices, change=as_mr, **size)
