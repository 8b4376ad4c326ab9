"""Pictures as Secondary Capture images (PS3.3 A.8), and back."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.results.header import (
    ST_LENGTH,
    Origin,
    complete,
    copy_body_part,
    fit,
    instance_attributes,
    plain_object,
    whole_references,
)


def capture(origin: Origin, rgb: NDArray[np.uint8], part: str, position: int, description: str, what: str) -> Dataset:
    """Write one picture as a Secondary Capture image.

    Parameters
    ----------
    rgb : numpy.ndarray of uint8, shape (rows, columns, 3)
        The picture.
    part, position, description
        As `header.instance_attributes` has them.
    what : str
        Derivation Description (0008,2111), at most 1024 characters.

    Returns
    -------
    pydicom.Dataset
        RGB, uncompressed; it names every image of the source, and says that something is written in its pixels.
    """
    attributes = instance_attributes(origin, part, position, description)
    image = plain_object(origin, SecondaryCaptureImageStorage, "OT", attributes)
    carry_over(image, origin, what)
    image.PatientOrientation = ""  # several planes on one page
    image.SourceImageSequence = whole_references(origin.slices)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns, _ = rgb.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = rgb.tobytes() + b"\0" * (rgb.size % 2)
    copy_body_part(image, origin)
    complete(image, origin)
    return image


def carry_over(image: Dataset, origin: Origin, what: str, *, written: bool = True) -> None:
    """Say of a picture what it was drawn from, whether something is written in its pixels, and what was lost before."""
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.BurnedInAnnotation = "YES" if written else "NO"
    image.DerivationDescription = fit(what, ST_LENGTH)
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in origin.slices[0]:
            setattr(image, keyword, origin.slices[0][keyword].value)


def png(data: bytes) -> bytes:
    """Turn a stored Secondary Capture image into a PNG, for a web page or a mail.

    Parameters
    ----------
    data : bytes
        The DICOM file.
    """
    image = dcmread(BytesIO(data))
    out = BytesIO()
    Image.fromarray(np.asarray(image.pixel_array, np.uint8)).save(out, "PNG", optimize=True)
    return out.getvalue()
