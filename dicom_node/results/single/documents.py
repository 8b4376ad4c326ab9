"""Documents about all single images of a series: the printed report, and which of them to look at."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.results.header import series_description
from dicom_node.results.kos import name_images
from dicom_node.results.pdf import encapsulated
from dicom_node.results.single.analysed import Images
from dicom_node.results.words import titled


def build_images_pdf(told: Images) -> Dataset:
    """Write the printed report, whether or not anything was found."""
    from dicom_node.results.single.printed import print_images_report  # its library is slow to load; few want a PDF

    description, title = series_description(told.origin, "report"), codes.DCM.ImagingMeasurementReport
    return encapsulated(told.origin, description, title, [], lambda identity: print_images_report(told, identity))


def build_images_kos(told: Images) -> Dataset | None:
    """Name the images on which something is marked or a point lies; None when there is none."""
    shown = [image for image in told.images if image.pictured]
    if not shown:
        return None
    found = [f"{image.name}: {titled(segment)}" for image in shown for segment in image.marked]
    found += [f"{image.name}: {marked.landmark.label}" for image in shown for marked in image.points]
    return name_images(told.origin, [told.header(image) for image in shown], found)
