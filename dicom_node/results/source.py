"""The headers of the source series, made fit to be copied into a result.

Real series carry wrong characters, impossible dates and sexes that the standard does not know. What identifies the
patient and the study is carried over as it is, or the PACS could not file the result; of the rest an invalid value is
emptied (type 2) or left out (type 3), so that a fault of the source does not become a fault of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless
from pydicom.valuerep import DS, validate_value

from dicom_node.domain.header import texts
from dicom_node.domain.job import Job, JobInstance

IDENTITY = frozenset({"PatientID", "PatientName", "StudyInstanceUID", "StudyID", "AccessionNumber"})
TYPE_2 = (  # PS3.3 C.7.1.1 and C.7.2.1: present in every object, empty when unknown
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_SLICE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
)
_SCANNER = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "InstitutionName",
    "StationName",
)
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LOSSY_METHOD: dict[str, str] = {  # PS3.3 C.7.6.1.1.5: syntaxes that cannot be without loss
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}


class SourceVolume(Protocol):
    """What a result needs of the volume that was analysed; `dicom_node.volume.Volume` is one."""

    @property
    def array(self) -> NDArray[np.float32]:
        """Rescaled values, shape (slices, rows, columns)."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """Maps (slice, row, column, 1) to LPS coordinates in mm, at the voxel's centre; shape (4, 4)."""

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Headers without pixel data, one for each slice, in the order of `array`; a frame has a number in its own."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between voxel centres along the three axes of `array`, in mm."""


def patient_and_study(header: Dataset) -> Dataset:
    """Copy a header for the patient and study modules of a result: decoded text, valid values.

    Parameters
    ----------
    header : pydicom.Dataset
        Header of one source instance, in any character set.

    Returns
    -------
    pydicom.Dataset
        A new data set that holds every type 2 attribute of both modules, none with bytes of an old character set.
    """
    clean = Dataset()
    blank = [keyword for keyword in TYPE_2 if _is_blank(header, keyword)]
    with config.disable_value_validation():
        for element in _readable(header):
            if element.tag.group < 0x0050 and (copied := _clean_element(element)) is not None:
                clean.add(copied)
    for keyword in TYPE_2:
        if keyword in blank or keyword not in clean:
            setattr(clean, keyword, " " if keyword in blank else "")
    return clean


def slice_headers(
    volume: SourceVolume, instances: Sequence[JobInstance], patient: Dataset, frame_of_reference_uid: str
) -> tuple[Dataset, ...]:
    """Headers of the slices as the builders want them: geometry, references and the scanner, but no patient.

    Parameters
    ----------
    volume : SourceVolume
        The volume that was analysed.
    instances : sequence of JobInstance
        Their rows: the transfer syntax says whether pixels were compressed with loss.
    patient : pydicom.Dataset
        The cleaned header: which scanner it was.
    frame_of_reference_uid : str
        Used where the source has none, although it is of type 1.

    Returns
    -------
    tuple of pydicom.Dataset
        One for each slice, in the order of the volume. Orientation, slice thickness and spacing are those of the
        whole: differences within the tolerance of assembly would only confuse a reader.
    """
    with config.disable_value_validation():
        first = volume.datasets[0]
        shared = lossy_flags(volume.datasets, instances)
        shared.update(scanner_of(patient))
        spacing = DS(round(volume.spacing_mm[0], 6), auto_format=True)
        shared.SpacingBetweenSlices = spacing
        shared.SliceThickness = first.get("SliceThickness") or spacing
        shared.ImageOrientationPatient = first.ImageOrientationPatient
        shared.FrameOfReferenceUID = first.get("FrameOfReferenceUID") or frame_of_reference_uid
        shared.PositionReferenceIndicator = first.get("PositionReferenceIndicator") or ""
        return tuple(_slice_header(header, shared) for header in volume.datasets)


def received_headers(job: Job, received: Sequence[JobInstance], patient: Dataset) -> tuple[Dataset, ...]:
    """Headers of whatever was received of a series, by which a report can name it: no geometry, for there may be none.

    Parameters
    ----------
    received : sequence of JobInstance
        Their rows, in the order in which the report shall list them.
    patient : pydicom.Dataset
        The cleaned header: which scanner it was.
    """
    with config.disable_value_validation():
        shared = scanner_of(patient)
        shared.StudyInstanceUID, shared.SeriesInstanceUID = job.study_instance_uid, job.series_instance_uid
        headers = []
        for instance in received:
            copy = Dataset()
            copy.update(shared)
            copy.SOPClassUID, copy.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
            copy.Modality = "".join(texts(instance.header, "Modality")[:1])
            headers.append(copy)
        return tuple(headers)


def other_headers(job: Job, patient: Dataset) -> tuple[Dataset, ...]:
    """Headers of the images of a job's other series, by which results name them: all but those that they lie on.

    Parameters
    ----------
    patient : pydicom.Dataset
        The cleaned header: which scanner it was.
    """
    headers: list[Dataset] = []
    for other in job.inputs[1:]:
        of_other = replace(job, series_instance_uid=other.series_instance_uid)
        headers += received_headers(of_other, other.instances, patient)
    return tuple(headers)


def scanner_of(patient: Dataset) -> Dataset:
    """Which scanner it was, and no patient: `complete` puts the patient in."""
    shared = Dataset()
    for keyword in TYPE_2:
        setattr(shared, keyword, "")
    for keyword in _SCANNER:
        if patient.get(keyword):
            setattr(shared, keyword, patient[keyword].value)
    return shared


def _slice_header(header: Dataset, shared: Dataset) -> Dataset:
    copy = Dataset()
    copy.update(shared)
    for keyword in _SLICE:
        setattr(copy, keyword, header[keyword].value)
    if frame := header.get("ReferencedFrameNumber"):
        copy.ReferencedFrameNumber = frame
    return copy


def lossy_flags(headers: Sequence[Dataset], instances: Sequence[JobInstance]) -> Dataset:
    """Lossy compression is for ever: one lossy slice marks the result (PS3.3 C.7.6.1.1.5)."""
    flags = Dataset()
    syntax_of = {instance.sop_instance_uid: instance.transfer_syntax_uid for instance in instances}
    for header in headers:
        syntax = syntax_of[str(header.SOPInstanceUID)]
        method = _LOSSY_METHOD.get(syntax)
        if header.get("LossyImageCompression") == "01":
            for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
                if header.get(keyword):
                    setattr(flags, keyword, header[keyword].value)
        elif method is None:
            continue
        flags.LossyImageCompression = "01"
        if "LossyImageCompressionMethod" not in flags and (method or syntax == JPEG2000):
            flags.LossyImageCompressionMethod = method or "ISO_15444_1"
        break
    return flags


def _clean_element(element: DataElement) -> DataElement | None:
    vr = str(element.VR)
    if vr == "SQ":
        items = [patient_item for item in element.value or [] if (patient_item := _clean_item(item))]
        return DataElement(element.tag, "SQ", items)
    values = [_clean_value(element.keyword, vr, value) for value in _values(element)]
    if element.keyword not in IDENTITY and not all(_is_valid(vr, value) for value in values):
        if element.keyword not in TYPE_2:
            return None
        values = []
    value: Any = values[0] if len(values) == 1 else (values or "")
    return DataElement(element.tag, vr, value, validation_mode=config.IGNORE)


def _clean_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for element in _readable(item):
        if (copied := _clean_element(element)) is not None:
            copy.add(copied)
    return copy


def _is_blank(header: Dataset, keyword: str) -> bool:
    """Whether a value is nothing but padding: an archive that compares objects byte by byte calls that a difference."""
    raw = header.get_item(keyword)
    return isinstance(raw, RawDataElement) and bool(raw.value) and not raw.value.strip(b" ")


def _readable(header: Dataset) -> Iterator[DataElement]:
    for tag in sorted(header.keys()):
        try:
            element = header[tag]
        except (ValueError, TypeError, OverflowError):
            continue  # a decimal string that holds letters cannot even be read
        if not element.tag.is_private and element.VR not in _BULK:
            yield element


def _values(element: DataElement) -> Iterator[Any]:
    if element.value is None or element.value == "":
        return iter(())
    return iter(element.value) if element.VM > 1 else iter((element.value,))


def _clean_value(keyword: str, vr: str, value: Any) -> Any:
    if vr in ("PN", "UI", "DS", "IS"):
        return str(value)  # a PersonName would keep the bytes of the source's character set
    if not isinstance(value, str):
        return value
    text = value.strip()
    if vr == "DA":
        return text.replace(".", "")  # ACR-NEMA wrote 1997.04.23
    if vr == "TM":
        return text.replace(":", "")
    if keyword == "PatientSex":
        return text.upper()[:1] if text.upper() in ("M", "F", "O", "MALE", "FEMALE", "OTHER") else ""
    return text


def _is_valid(vr: str, value: Any) -> bool:
    if isinstance(value, str) and re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", value):
        return False
    try:
        validate_value(vr, value, config.RAISE)
    except (ValueError, TypeError):
        return False
    return True
