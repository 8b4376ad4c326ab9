"""What a newer result takes the place of, marked as rejected: a key object selection as IHE IOCM has it.

An archive that knows the profile hides what such a document names; others keep it as a document beside it. It names
only what its destinations hold, since an archive may refuse one that names what it has never seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain.job import Document, Job
from dicom_node.domain.model import ModelCard
from dicom_node.results.document import observer, requests
from dicom_node.results.header import Equipment, Origin, complete, instance_attributes, series_description

_STORAGE = "1.2.840.10008.5.1.4.1.1"
_IMAGES = {f"{_STORAGE}.{number}" for number in ("66.4", "66.7", "30", "7", "7.4")}


def build_rejection(
    job: Job, card: ModelCard, header: Dataset, equipment: Equipment, objects: Sequence[Document], number: int = 1
) -> Dataset:
    """Reject objects of earlier jobs: (113001, DCM, "Rejected for Quality Reasons").

    Parameters
    ----------
    job : Job
        The one whose results take their place.
    header : pydicom.Dataset
        Of one of the images: whose they are.
    objects : sequence of Document
        What is rejected, all of it in the study of the job.
    number : int
        Tells several such documents of one job apart.

    Returns
    -------
    pydicom.Dataset
        Its UID derives from the job and from what it names: other contents are another document.
    """
    origin = Origin.of_received(job, card, header, job.instances[:1], equipment)
    named = [_reference(each, origin) for each in objects]
    selection = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.RejectedForQualityReasons,
        referenced_objects=named,
        observer_device_context=observer(origin),
        description="A newer result took the place of these objects.",
    )
    attributes = instance_attributes(origin, "rejection", 14, series_description(origin, "outdated results"))
    digest = hashlib.sha256("\n".join(each.sop_instance_uid for each in objects).encode()).hexdigest()
    attributes["sop_instance_uid"] = origin.uid(f"rejection/{digest}")
    attributes["instance_number"] = number
    document = hd.ko.KeyObjectSelectionDocument(
        evidence=named,
        content=selection,
        requested_procedures=requests(origin),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **attributes,
    )
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE") and "ConceptNameCodeSequence" in item:
            del item.ConceptNameCodeSequence  # TID 2010 has none there
    complete(document, origin)
    return document


def _reference(each: Document, origin: Origin) -> Dataset:
    """Stand in for an object that is named by its UIDs; an image is told from a document by its rows."""
    stub = deepcopy(origin.slices[0])
    stub.SeriesInstanceUID = each.series_instance_uid
    stub.SOPClassUID, stub.SOPInstanceUID = each.sop_class_uid, each.sop_instance_uid
    if each.sop_class_uid in _IMAGES:
        stub.Rows = stub.Columns = 1
    return stub
