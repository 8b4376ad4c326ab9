"""Look whether a PACS has objects: C-FIND at the level of instances (PS3.4 C.6.2, study root)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
)

from dicom_node.deliver.association import Conversation, associated
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.proof import Proof
from dicom_node.errors import DeliveryError

SERVICE = str(StudyRootFind)
PENDING = (0xFF00, 0xFF01)
PERMANENT = {0xA900, 0x0122}  # the identifier does not match the class; the class is not supported


def find(destination: DimseDestination, proofs: Sequence[Proof]) -> set[str]:
    """Ask a destination which of some objects it has: one query for each series of ours.

    Returns
    -------
    set of str
        The SOP Instance UIDs of those that it has.

    Raises
    ------
    DeliveryError
        When it cannot be asked, or does not answer such queries.
    """
    found: set[str] = set()
    in_series = sorted(proofs, key=_series)
    with associated(destination, [build_context(StudyRootFind)]) as conversation:
        for (study, series), _ in groupby(in_series, key=_series):
            found |= instances_of(conversation, destination, study, series)
    return found & {proof.sop_instance_uid for proof in proofs}


def count(destination: DimseDestination, study: str, series: str) -> int:
    """Ask a destination how many instances it has of a series; 0 where it does not know the series.

    It is asked for Number of Series Related Instances (0020,1209). Not every peer gives that: then its instances are
    counted.

    Raises
    ------
    DeliveryError
        When it cannot be asked, or does not answer such queries.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study, series
    identifier.NumberOfSeriesRelatedInstances = None
    with associated(destination, [build_context(StudyRootFind)]) as conversation:
        found = _matches(conversation, destination, identifier)
        mine = [match for match in found if str(match.get("SeriesInstanceUID", series)) == series]
        if not mine:
            return 0
        told = mine[0].get("NumberOfSeriesRelatedInstances")
        return int(told) if told else len(instances_of(conversation, destination, study, series))


def instances_of(conversation: Conversation, destination: DimseDestination, study: str, series: str) -> set[str]:
    """Ask for the SOP Instance UIDs of one series; empty where the peer does not know it.

    Raises
    ------
    DeliveryError
        When the peer does not answer, or answers with a failure.
    """
    matches = _matches(conversation, destination, _identifier(study, series))
    return {str(match.get("SOPInstanceUID", "")) for match in matches}


def _matches(conversation: Conversation, destination: DimseDestination, identifier: Dataset) -> list[Dataset]:
    found: list[Dataset] = []

    def query() -> Dataset:
        last = Dataset()
        for status, match in conversation.assoc.send_c_find(identifier, StudyRootFind):
            last = status
            if match is not None and status.get("Status") in PENDING:
                found.append(match)
        return last

    answer = conversation.ask(query, "C-FIND", destination.timeout_s)
    if answer.Status != 0x0000:
        comment = f": {answer.ErrorComment}" if answer.get("ErrorComment") else ""
        raise DeliveryError(
            f"{destination.name} answered C-FIND with 0x{answer.Status:04X}{comment}",
            retry=answer.Status not in PERMANENT,
            status=answer.Status,
        )
    return found


def _series(proof: Proof) -> tuple[str, str]:
    return proof.study_instance_uid, proof.series_instance_uid


def _identifier(study: str, series: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "IMAGE"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.SOPInstanceUID = ""
    return ds
