"""The report as a document that every PACS shows: encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage

from dicom_node.results.analysis import Analysis
from dicom_node.results.header import (
    RESEARCH_ONLY,
    complete,
    fit,
    instance_attributes,
    plain_object,
    references,
    series_description,
)


def build_pdf(analysis: Analysis) -> Dataset:
    """Write the printed report, whether or not anything was found: if not, it says where nothing was."""
    from dicom_node.results.printed import print_report  # its library is slow to load, and few want a PDF

    origin = analysis.origin
    attributes = instance_attributes(origin, "pdf", 11, series_description(origin, "report"))
    document = plain_object(origin, EncapsulatedPDFStorage, "DOC", attributes)
    document.ConversionType = "SYN"
    document.BurnedInAnnotation = "YES"
    document.AcquisitionDateTime = ""
    document.DocumentTitle = fit(f"{origin.card.title} {RESEARCH_ONLY}", 1024)
    document.ConceptNameCodeSequence = [hd.sr.CodedConcept.from_code(codes.DCM.ImagingMeasurementReport)]
    document.VerificationFlag = "UNVERIFIED"
    document.SourceInstanceSequence = references([*origin.slices, *analysis.made])
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    complete(document, origin)
    data = print_report(analysis, document)
    document.EncapsulatedDocumentLength = len(data)
    document.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    return document
