"""The image library of a report on one volume (PS3.16 TID 1600): which of its images the report speaks of."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.results.document import library_entry
from dicom_node.results.header import Origin

_POSITION = (codes.DCM.ImagePositionPatientX, codes.DCM.ImagePositionPatientY, codes.DCM.ImagePositionPatientZ)


def image_library(origin: Origin, images: Sequence[Dataset]) -> Dataset:
    """List images with what they share stated once, for their group (PS3.16 TID 1600): a fifth of the size.

    Slices of one volume differ in nothing but their position.

    Parameters
    ----------
    images : sequence of pydicom.Dataset
        Some of `origin.slices`, at least one.
    """
    library = hd.sr.ImageLibrary(images[:1])[0]
    (group,) = library.ContentSequence
    *of_group, first = group.ContentSequence
    said = {_concept(item) for item in of_group} | {concept.value for concept in _POSITION}
    said |= set() if origin.patient.get("SliceThickness") else {codes.DCM.SliceThickness.value}
    shared = [item for item in first.ContentSequence if _concept(item) not in said]
    differ = [axis for axis in range(3) if len({float(image.ImagePositionPatient[axis]) for image in images}) > 1]
    shared += [_position(images[0], axis) for axis in range(3) if axis not in differ]
    entries = [library_entry(image, [_position(image, axis) for axis in differ]) for image in images]
    group.ContentSequence = hd.sr.ContentSequence([*of_group, *shared, *entries])
    return library


def _position(image: Dataset, axis: int) -> hd.sr.NumContentItem:
    return hd.sr.NumContentItem(
        name=_POSITION[axis],
        value=float(image.ImagePositionPatient[axis]),
        unit=codes.UCUM.Millimeter,
        relationship_type="HAS ACQ CONTEXT",
    )


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""
