"""Ask an archive for studies: C-FIND, then C-MOVE to a receiver of ours, or C-GET (PS3.4 annex C, study root)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    BreastTomosynthesisImageStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    EnhancedSRStorage,
    EnhancedXAImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiationDoseSRStorage,
    XRayRadiofluoroscopicImageStorage,
)

from dicom_node.deliver.association import Conversation, associated
from dicom_node.deliver.query import PENDING
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.retrieval import Kind
from dicom_node.errors import DeliveryError

FIND = StudyRootQueryRetrieveInformationModelFind
MOVE = StudyRootQueryRetrieveInformationModelMove
GET = StudyRootQueryRetrieveInformationModelGet
_LOOK_S = 0.5
PATIENCE_S = 10.0  # with an archive that was told to stop; then the association is aborted
_MESSAGE_ID = 1
WARNING = 0xB000  # some of the sub-operations failed
PERMANENT = {0xA900, 0x0122, 0x0211}
_WORDS = {
    0xA701: "it is out of resources for counting matches",
    0xA702: "it is out of resources for sending",
    0xA801: "it does not know our AE title {to}: register it there, with our host and receive.port",
    0xA900: "it cannot make sense of the request",
    0x0122: "it does not offer this service",
    0xFE00: "it canceled the request",
}
_PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
# A context for each, so that whatever is stored there is sent as it is; with the C-GET itself they are the 128 that an
# association may have (PS3.8 9.3.2.2).
_ENCODINGS: list[list[str | UID]] = [
    [JPEGLosslessSV1],
    [JPEGLSLossless],
    [JPEG2000Lossless, JPEG2000],
    [RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit],
    _PLAIN,
]
IMAGES: tuple[UID, ...] = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage,
    NuclearMedicineImageStorage,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    XRayAngiographicImageStorage,
    EnhancedXAImageStorage,
    XRayRadiofluoroscopicImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
OTHERS: tuple[UID, ...] = (
    SegmentationStorage,
    EnhancedSRStorage,
    ComprehensiveSRStorage,
    XRayRadiationDoseSRStorage,
    KeyObjectSelectionDocumentStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    EncapsulatedPDFStorage,
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance that came by C-GET. `data` is the data set as it was sent."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Came:
    """How many instances an archive says it sent, and how many it could not."""

    completed: int
    failed: int = 0


def find_studies(source: DimseDestination, kind: Kind, value: str) -> list[str]:
    """Ask for the studies with an accession number, or for one by its UID.

    Returns
    -------
    list of str
        Study Instance UIDs; a match that names another accession number than was asked for is left out.

    Raises
    ------
    DeliveryError
        When the archive does not answer, or refuses.
    """
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "STUDY"
    wanted.StudyInstanceUID = value if kind is Kind.STUDY else ""
    wanted.AccessionNumber = value if kind is Kind.ACCESSION else ""
    found: list[Dataset] = []
    with associated(source, [build_context(FIND, _PLAIN)]) as conversation:

        def query() -> Dataset:
            last = Dataset()
            for status, match in conversation.assoc.send_c_find(wanted, FIND):
                last = status
                if match is not None and status.get("Status") in PENDING:
                    found.append(match)
            return last

        _judge(source, "C-FIND", conversation.ask(query, "C-FIND", source.timeout_s), "")
    keyword = "StudyInstanceUID" if kind is Kind.STUDY else "AccessionNumber"
    same = [one for one in found if str(one.get(keyword, "")).strip() == value]
    return list(dict.fromkeys(str(one.get("StudyInstanceUID", "")) for one in same if one.get("StudyInstanceUID")))


def move(source: DimseDestination, study: str, to: str, allowed_s: float, keep_on: Callable[[], bool]) -> Came:
    """Have a study sent to one of our AE titles.

    Parameters
    ----------
    allowed_s : float
        How long the archive may say nothing.
    keep_on : callable
        Looked at all the time: once it says no, the archive is told to stop (C-CANCEL).

    Raises
    ------
    DeliveryError
        When it does not answer, or sends none or not all.
    """
    with associated(source, [build_context(MOVE, _PLAIN)]) as conversation, _stoppable(conversation, MOVE, keep_on):
        last = _run(
            conversation,
            lambda: conversation.assoc.send_c_move(_of(study), to, MOVE, msg_id=_MESSAGE_ID),
            "C-MOVE",
            allowed_s,
        )
    return _judge(source, "C-MOVE", last, to)


def get(
    source: DimseDestination,
    study: str,
    store: Callable[[Arrived], int],
    allowed_s: float,
    keep_on: Callable[[], bool],
) -> Came:
    """Have a study sent on the association that asks for it.

    Parameters
    ----------
    store : callable
        Stores an instance; its C-STORE status.
    allowed_s : float
        How long the archive may say nothing.
    keep_on : callable
        As for `move`.

    Raises
    ------
    DeliveryError
        When it does not answer, or sends none or not all.
    """

    def take(event: evt.Event) -> int:
        request: Any = event.request
        data = request.DataSet.getvalue() if request.DataSet else b""
        uids = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        return store(Arrived(*uids, str(event.context.transfer_syntax), data))

    contexts = [build_context(GET, _PLAIN)]
    contexts += [build_context(uid, some) for uid in IMAGES for some in _ENCODINGS]
    contexts += [build_context(uid, _PLAIN) for uid in OTHERS]
    roles = [build_role(uid, scp_role=True) for uid in (*IMAGES, *OTHERS)]
    with (
        associated(source, contexts, [(evt.EVT_C_STORE, take)], roles) as conversation,
        _stoppable(conversation, GET, keep_on),
    ):
        last = _run(
            conversation,
            lambda: conversation.assoc.send_c_get(_of(study), GET, msg_id=_MESSAGE_ID),
            "C-GET",
            allowed_s,
        )
    return _judge(source, "C-GET", last, "")


def _of(study: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.StudyInstanceUID = "STUDY", study
    return ds


@contextmanager
def _stoppable(conversation: Conversation, service: UID, keep_on: Callable[[], bool]) -> Iterator[None]:
    """Tell the archive to stop what it was asked for, once nobody wants it any more (PS3.4 C.4.2.1.3)."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(_LOOK_S):
            if not keep_on():
                conversation.assoc.send_c_cancel(_MESSAGE_ID, query_model=service)
                if not ended.wait(PATIENCE_S):
                    conversation.assoc.abort()
                return

    watching = Thread(target=watch, name="keep on", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _run(
    conversation: Conversation,
    request: Callable[[], Iterator[tuple[Dataset, Dataset | None]]],
    what: str,
    allowed_s: float,
) -> Dataset:
    """Follow a retrieval to its last answer; each answer may take as long as is allowed."""

    def last() -> Dataset:
        status = Dataset()
        for answer, _ in request():
            status = answer
        return status

    return conversation.ask(last, what, allowed_s)


def _judge(source: DimseDestination, what: str, answer: Dataset, to: str) -> Came:
    """Understand the last answer (PS3.4 tables C.4-1 to C.4-3)."""
    status = int(answer.Status)
    failed = int(answer.get("NumberOfFailedSuboperations") or 0)
    came = Came(int(answer.get("NumberOfCompletedSuboperations") or 0), failed)
    came = replace(came, completed=came.completed + int(answer.get("NumberOfWarningSuboperations") or 0))
    if status == 0x0000 and not failed:
        return came
    if status in (0x0000, WARNING):
        told = f"{source.name} could not send {failed} of {failed + came.completed} instances"
        raise DeliveryError(told, retry=True, status=status)
    words = _WORDS.get(status, "").format(to=to) or str(answer.get("ErrorComment", ""))
    told = f"{source.name} answered {what} with 0x{status:04X}" + (f": {words}" if words else "")
    raise DeliveryError(told, retry=status not in PERMANENT, status=status)
