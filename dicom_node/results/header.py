"""What every result object says of itself: whose it is, who made it, from what and when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from io import BytesIO
from typing import Any

import highdicom as hd
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from dicom_node import __version__
from dicom_node.domain.codes import LOCAL_SCHEME, LOCAL_SCHEME_NAME, LOCAL_SCHEME_RESPONSIBLE
from dicom_node.domain.finding import Code
from dicom_node.domain.job import Job, JobInstance
from dicom_node.domain.model import ModelCard
from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, device_uid, result_uid
from dicom_node.results.frames import Framed
from dicom_node.results.source import SourceVolume, other_headers, patient_and_study, received_headers, slice_headers
from dicom_node.settings import Node

PRODUCT = "dicom-node"
LO_LENGTH, SH_LENGTH, ST_LENGTH = 64, 16, 1024  # PS3.5 6.2
RESEARCH_ONLY = "(research only)"


@dataclass(frozen=True, slots=True)
class Equipment:
    """The node as a device (PS3.3 C.7.5.2, Enhanced General Equipment: every attribute is of type 1)."""

    model_name: str
    version: str
    serial: str
    institution: str = ""
    manufacturer: str = PRODUCT


def equipment_of(node: Node) -> Equipment:
    """Give the equipment that the settings describe."""
    return Equipment(PRODUCT, __version__, node.serial or "1", node.institution)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a result comes from. Every UID, time and name in it follows from this: a retry writes the same bytes.

    `patient` is the source's patient and study, cleaned; `slices` the source's slices in the order of the volume. Of a
    series that was not analysed they are whatever was received, without geometry. `others` are the images of further
    series that a model worked on, without geometry as well.
    """

    job: Job
    card: ModelCard
    equipment: Equipment
    patient: Dataset
    slices: tuple[Dataset, ...]
    others: tuple[Dataset, ...] = ()

    @classmethod
    def of(cls, job: Job, card: ModelCard, volume: SourceVolume, equipment: Equipment) -> Origin:
        """Read the source's headers once for all the results of a job."""
        patient = patient_and_study(volume.datasets[0])
        slices = slice_headers(volume, job.instances, patient, result_uid(job.id, "frame of reference"))
        return cls(job, card, equipment, patient, slices, other_headers(job, patient))

    @classmethod
    def of_received(
        cls, job: Job, card: ModelCard, header: Dataset, received: Sequence[JobInstance], equipment: Equipment
    ) -> Origin:
        """Tell the origin of a report on a series that was not analysed, from the header of one of its instances."""
        patient = patient_and_study(header)
        return cls(job, card, equipment, patient, received_headers(job, received, patient), other_headers(job, patient))

    def uid(self, part: str) -> str:
        """UID of one part of the results, the same at every attempt."""
        return result_uid(self.job.id, part)

    @property
    def algorithm_version(self) -> str:
        """Version and weights, e.g. ``0.1.0+sha256.ab12cd34ef56``: at most 64 characters."""
        weights = f"+sha256.{self.card.weights_digest[:12]}" if self.card.weights_digest else ""
        return fit(f"{self.card.version}{weights}", LO_LENGTH)

    @property
    def device_uid(self) -> str:
        """Device UID (0018,1002): a new one whenever the model changes (IHE AIR 6.5.3.1)."""
        return device_uid(self.card.digest or f"{self.card.name}|{self.card.version}")

    @property
    def time(self) -> datetime:
        """When the job was made, on the clock of the source: DICOM dates and times carry no zone of their own."""
        return self.job.created_at.astimezone(_zone(self.patient.get("TimezoneOffsetFromUTC")))

    @property
    def statement(self) -> str:
        """What the model is and what it was trained on: in every object, for whoever finds it alone."""
        return fit(f"{self.card.title}. {self.card.training}", ST_LENGTH)

    @property
    def digests(self) -> str:
        """The model's digests in full: the version has room for the beginning of one."""
        return " ".join(f"{name}={digest}" for name, digest in self.known_digests.items())

    @property
    def known_digests(self) -> dict[str, str]:
        """They, by their names; a model that is a program has none of weights."""
        digests = {"weights_sha256": self.card.weights_digest, "bundle_sha256": self.card.digest}
        return {name: digest for name, digest in digests.items() if digest}


def instance_attributes(origin: Origin, part: str, position: int, description: str) -> dict[str, Any]:
    """Arguments that highdicom wants for every object: series, instance, equipment and times.

    Parameters
    ----------
    origin : Origin
        Where the object comes from.
    part : str
        Names the object and its series among the results of the job, e.g. ``"seg"``.
    position : int
        1 for the first kind of object of a job, 2 for the second: the last two digits of the series number.
    description : str
        Series Description (0008,103E), shortened to 64 characters.
    """
    number = origin.patient.get("SeriesNumber")
    number = int(number) if str(number or "").isdecimal() and int(number) < 10**7 else 0
    time = origin.time.replace(tzinfo=None)
    return {
        "series_instance_uid": origin.uid(f"{part}/series"),
        "series_number": 10_000 + 100 * number + position,  # behind the scanner's own, in its order
        "sop_instance_uid": origin.uid(part),
        "instance_number": 1,
        "manufacturer": origin.equipment.manufacturer,
        "manufacturer_model_name": origin.equipment.model_name,
        "software_versions": origin.equipment.version,
        "device_serial_number": fit(origin.equipment.serial, LO_LENGTH),
        "institution_name": fit(origin.equipment.institution, LO_LENGTH) or None,
        "series_description": description,
        "series_date": time.date(),
        "series_time": time.time(),
        "content_date": time.date(),
        "content_time": time.time(),
        "specific_character_set": "ISO_IR 192",
        "contributing_equipment": [_algorithm_equipment(origin)],
    }


def plain_object(origin: Origin, sop_class_uid: str, modality: str, attributes: dict[str, Any]) -> hd.SOPClass:
    """Begin an object of a class for which highdicom has no builder.

    Parameters
    ----------
    attributes : dict
        As `instance_attributes` gives them.
    """
    given = dict(attributes)
    equipment = given.pop("contributing_equipment")
    begun = hd.SOPClass(
        study_instance_uid=origin.slices[0].StudyInstanceUID,
        sop_class_uid=sop_class_uid,
        modality=modality,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **given,
    )
    begun.ContributingEquipmentSequence = equipment
    return begun


def complete(result: Dataset, origin: Origin) -> None:
    """Fill in what highdicom leaves to the caller, and replace what it takes from the clock or from chance.

    Parameters
    ----------
    result : pydicom.Dataset
        An object that highdicom has just built from `origin.slices`; changed in place.
    origin : Origin
        Where it comes from.
    """
    assert isinstance(result, hd.SOPClass)
    with config.disable_value_validation():  # a PatientID of 70 characters is still the patient's
        result.copy_patient_and_study_information(origin.patient)
        if offset := origin.patient.get("TimezoneOffsetFromUTC"):
            result.TimezoneOffsetFromUTC = offset
    result.InstanceCreationDate = result.SeriesDate
    result.InstanceCreationTime = result.SeriesTime
    for item in result.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            del item.ContributionDateTime
    _declare_coding_schemes(result, origin.patient)
    result.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    result.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def copy_body_part(result: Dataset, origin: Origin) -> None:
    """Say of which part of the body an image is, in the words of its source (PS3.3 C.7.3.1)."""
    for keyword in ("BodyPartExamined", "Laterality"):
        if origin.patient.get(keyword):
            setattr(result, keyword, origin.patient[keyword].value)


def references(images: Sequence[Dataset]) -> list[Dataset]:
    """Name images by class, instance and frame (PS3.3 10.3), as the many sequences of references want it."""
    items = []
    for image in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        if frame := image.get("ReferencedFrameNumber"):
            item.ReferencedFrameNumber = frame
        items.append(item)
    return items


def instances_of(images: Sequence[Dataset]) -> list[Dataset]:
    """Give one image of each instance: the frames of an object are named by it once."""
    return list({image.SOPInstanceUID: image for image in reversed(images)}.values())[::-1]


def as_single(images: Sequence[Dataset]) -> list[Dataset]:
    """Give frames as single slices, which highdicom wants; what it then writes of their class has to be replaced."""
    return [_single(image) if "ReferencedFrameNumber" in image else image for image in images]


def _single(frame: Dataset) -> Dataset:
    copy = Dataset()
    copy.update(frame)
    copy.add_new("SOPClassUID", "UI", CTImageStorage)  # assigning would change the element that both share
    return copy


def whole_references(images: Sequence[Dataset]) -> list[Dataset]:
    """Name instances, once each and without frames."""
    items = references(instances_of(images))
    for item in items:
        item.pop("ReferencedFrameNumber", None)
    return items


def merged_references(images: Sequence[Dataset]) -> list[Dataset]:
    """Name instances, once each, with the list of those of their frames that are meant."""
    items = references(instances_of(images))
    for item in items:
        if "ReferencedFrameNumber" in item:
            own = (image for image in images if image.SOPInstanceUID == item.ReferencedSOPInstanceUID)
            item.ReferencedFrameNumber = sorted(int(image.ReferencedFrameNumber) for image in own)
    return items


def content_label(origin: Origin) -> str:
    """Make a label (CS) of the model's name, e.g. for Content Label (0070,0080)."""
    return re.sub(r"[^A-Z0-9_ ]", "_", origin.card.name.upper())[:16].strip() or "AI"


def fix_dimension_uid(result: Dataset, uid: str) -> None:
    """Replace the Dimension Organization UID, which highdicom draws by lot: a retry has to write the same one."""
    result.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in result.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def file_bytes(result: Dataset | Framed) -> bytes:
    """Encode the object as a DICOM file (PS3.10 7.1). Frames follow all that is said of the whole."""
    buffer = BytesIO()
    head = result.head if isinstance(result, Framed) else result
    head.save_as(buffer, enforce_file_format=True)
    if isinstance(result, Framed):
        buffer.write(result.frames)
    return buffer.getvalue()


def series_description(origin: Origin, what: str) -> str:
    """``AI <what>: <title> (research only)``, with the title shortened where the whole is too long.

    What it is comes first: viewers list series side by side and cut their names off after some twenty letters.
    """
    room = LO_LENGTH - len(f"AI {what}:  {RESEARCH_ONLY}")
    return f"AI {what}: {fit(origin.card.title, room)} {RESEARCH_ONLY}"


def code(concept: Code) -> PydicomCode:
    """Turn a concept of the domain into what the libraries want."""
    return PydicomCode(concept.value, concept.scheme, concept.meaning)


def fit(text: str, length: int) -> str:
    """Make free text a valid single value: no backslash or control character, shortened to `length` characters."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text).replace("\\", "/").strip()
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def _algorithm_equipment(origin: Origin) -> hd.ContributingEquipment:
    item = hd.ContributingEquipment(
        manufacturer=fit(origin.card.manufacturer, LO_LENGTH),
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=fit(origin.card.name, LO_LENGTH),
        software_versions=origin.algorithm_version,
        contribution_datetime=origin.time.replace(microsecond=0),
        contribution_description=f"{fit(origin.statement, ST_LENGTH - 200)} {origin.digests}".strip(),
    )
    item.DeviceUID = origin.device_uid  # IHE AIR 6.5.3.1 requires it; highdicom has no argument for it
    return item


def _zone(offset: object) -> tzinfo | None:
    """Read the source's zone, e.g. ``+0130``; None means this machine's, which is the hospital's."""
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", str(offset or ""))
    if match is None or int(match[2]) > 14:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-delta if match[1] == "-" else delta)


def _declare_coding_schemes(result: Dataset, source: Dataset) -> None:
    """Name every local coding scheme in use (PS3.3 C.12.1.1.6); the source says what stands behind its own."""
    known = {item.get("CodingSchemeDesignator"): item for item in source.get("CodingSchemeIdentificationSequence", ())}
    used = {str(element.value) for element in result.iterall() if element.keyword == "CodingSchemeDesignator"}
    items: Sequence[Dataset] = [known.get(scheme) or _scheme(scheme) for scheme in sorted(used) if _is_local(scheme)]
    if items:
        result.CodingSchemeIdentificationSequence = items


def _is_local(scheme: str) -> bool:
    return scheme.startswith("99") or scheme == "L"


def _scheme(designator: str) -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = designator
    if designator == LOCAL_SCHEME:
        item.CodingSchemeName = LOCAL_SCHEME_NAME
        item.CodingSchemeResponsibleOrganization = LOCAL_SCHEME_RESPONSIBLE
    return item
