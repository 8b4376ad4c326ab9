"""Which images to look at: a key object selection of the slices with findings (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results.analysis import Analysis
from dicom_node.results.document import observer, requests
from dicom_node.results.drawn import key_slices
from dicom_node.results.header import (
    Origin,
    complete,
    instance_attributes,
    instances_of,
    references,
    series_description,
)
from dicom_node.results.words import NOT_FOR_DIAGNOSIS, titled


def build_kos(analysis: Analysis) -> Dataset | None:
    """Name the slice on which each finding is largest as (113000, DCM, "Of Interest"); None when nothing was found."""
    origin = analysis.origin
    shown = [origin.slices[k] for k in key_slices(analysis)]
    if not shown:
        return None
    return name_images(origin, shown, _titles(analysis))


def name_images(origin: Origin, shown: Sequence[Dataset], found: Sequence[str]) -> Dataset:
    """Write the selection of some images, and the titles of what was found on them."""
    selection = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=shown,
        observer_device_context=observer(origin),
        description=f"{NOT_FOR_DIAGNOSIS}. {'; '.join(found)}"[:1024],
    )
    kos = hd.ko.KeyObjectSelectionDocument(
        evidence=instances_of(shown),
        content=selection,
        requested_procedures=requests(origin),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **instance_attributes(origin, "kos", 10, series_description(origin, "of interest")),
    )
    images = [item for item in kos.ContentSequence if item.ValueType == "IMAGE"]
    for item, image in zip(images, shown, strict=True):
        item.pop("ConceptNameCodeSequence", None)  # TID 2010 has none there
        item.ReferencedSOPSequence = references([image])  # highdicom leaves out the frame
    complete(kos, origin)
    return kos


def _titles(analysis: Analysis) -> list[str]:
    return [*map(titled, analysis.found), *(point.label for point in analysis.findings.points)]
