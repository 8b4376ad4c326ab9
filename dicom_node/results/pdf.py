"""The report as a document that every PACS shows: encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage

from dicom_node.results.analysis import Analysis
from dicom_node.results.header import (
    RESEARCH_ONLY,
    Origin,
    complete,
    fit,
    instance_attributes,
    plain_object,
    series_description,
    whole_references,
)


def build_pdf(analysis: Analysis) -> Dataset:
    """Write the printed report, whether or not anything was found: if not, it says where nothing was."""
    from dicom_node.results.printed import print_report  # its library is slow to load, and few want a PDF

    origin = analysis.origin
    description, title = series_description(origin, "report"), codes.DCM.ImagingMeasurementReport
    return encapsulated(origin, description, title, analysis.made, lambda identity: print_report(analysis, identity))


def encapsulated(
    origin: Origin, description: str, title: Code, made: Sequence[Dataset], print_it: Callable[[Dataset], bytes]
) -> Dataset:
    """Write a document in PDF.

    Parameters
    ----------
    description : str
        Series Description (0008,103E).
    title : Code
        Concept Name Code Sequence (0040,A043).
    made : sequence of pydicom.Dataset
        What it was made from beside the images.
    print_it : callable
        Prints it; gets the object that will hold it, with patient and study filled in.
    """
    attributes = instance_attributes(origin, "pdf", 11, description)
    document = plain_object(origin, EncapsulatedPDFStorage, "DOC", attributes)
    document.ConversionType = "SYN"
    document.BurnedInAnnotation = "YES"
    document.AcquisitionDateTime = ""
    document.DocumentTitle = fit(f"{origin.card.title} {RESEARCH_ONLY}", 1024)
    document.ConceptNameCodeSequence = [hd.sr.CodedConcept.from_code(title)]
    document.VerificationFlag = "UNVERIFIED"
    document.SourceInstanceSequence = whole_references([*origin.slices, *made])
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    complete(document, origin)
    data = print_it(document)
    document.EncapsulatedDocumentLength = len(data)
    document.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    return document
