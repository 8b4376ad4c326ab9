"""Objects to send: the test files of pydicom in every kind of transfer syntax, and small ones made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from tests.integration.receive.scu import Instance

FILES = {
    "implicit little endian": "MR_small_implicit.dcm",
    "explicit little endian": "MR_small.dcm",
    "explicit big endian": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "JPEG baseline": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG-LS lossless": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "693_J2KI.dcm",
    "RLE": "MR_small_RLE.dcm",
    "padded at the end": "MR_small_padded.dcm",
}


def sample(name: str) -> Instance:
    """One of `FILES`."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Instance.read(Path(path))


def ct(number: int = 1, *, series: str = "1.2.3.4", pixels: int = 2_000, **changes: Any) -> Instance:
    """A CT slice: too plain to be seen, whole enough to be stored.

    Parameters
    ----------
    changes
        Attributes of the data set, put over those that the command names, too; None leaves one out.
    """
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{series}.3.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{series}.1", f"{series}.2"
    ds.PatientID, ds.AccessionNumber, ds.Modality = "P1", "A1", "CT"
    ds.InstanceNumber = number
    ds.PixelData = bytes([number % 256]) * pixels
    ds["PixelData"].VR = "OB"
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    data = encode(ds, False, True)
    assert data is not None
    return Instance(CTImageStorage, f"{series}.3.{number}", ExplicitVRLittleEndian, data)
