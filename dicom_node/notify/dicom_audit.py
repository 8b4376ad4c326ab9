"""Audit events as DICOM audit messages (PS3.15 A.5): the XML of its schema, for the kinds of event that it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from sqlalchemy import Row

from dicom_node.domain.audit import Event

SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = "0", "4", "8"
_SOURCE, _DESTINATION, _APPLICATION = (
    ("110153", "Source Role ID"),
    ("110152", "Destination Role ID"),
    ("110150", "Application"),
)

Code = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: the node's name, its institution, its AE title and its host."""

    name: str
    institution: str
    ae_title: str
    host: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """An event of the standard (CID 400, 401) that one of ours is told as."""

    code: Code
    action: str
    people: Callable[[Element, Row[Any], Reporter], None]
    type: Code | None = None
    outcome: str = SUCCESS


def audit_message(row: Row[Any], by: Reporter) -> tuple[bytes, str] | None:
    """Write the message of an event.

    Parameters
    ----------
    row : sqlalchemy.Row
        As `db.audit.read_chained` reads it.

    Returns
    -------
    (bytes, str) or None
        The XML and its outcome indicator; None for events that the standard has no message for.
    """
    kind = _KINDS.get(row.event)
    if kind is None:
        return None
    message = Element("AuditMessage")
    told = {
        "EventActionCode": kind.action,
        "EventDateTime": row.at.isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": kind.outcome,
    }
    event = SubElement(message, "EventIdentification", told)
    _coded(event, "EventID", kind.code)
    if kind.type:
        _coded(event, "EventTypeCode", kind.type)
    kind.people(message, row, by)
    source = SubElement(message, "AuditSourceIdentification", AuditSourceID=by.name)
    if by.institution:
        source.set("AuditEnterpriseSiteID", by.institution)
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    if row.study_instance_uid:
        _study(message, row)
        _patient(message, row)
    elif uids := [uid for uid in (row.detail.get("study"), *row.detail.get("studies", ())) if uid]:
        for uid in uids:
            _object(message, uid)
    return tostring(message, encoding="utf-8", xml_declaration=True), kind.outcome


def _process(message: Element, row: Row[Any], by: Reporter) -> None:
    us = _participant(message, row.detail.get("executor") or by.ae_title, role=_APPLICATION)
    us.set("AlternativeUserID", f"AETITLES={by.ae_title}")


def _received(message: Element, row: Row[Any], by: Reporter) -> None:
    _ae(message, row.source_ae or "unknown", _SOURCE, requestor=True)
    _ae(message, by.ae_title, _DESTINATION, host=by.host)


def _handed_over(message: Element, row: Row[Any], by: Reporter) -> None:
    address = str(row.detail.get("address") or "")
    _participant(message, row.actor, role=_SOURCE, requestor=True, host=address)
    _ae(message, by.ae_title, _DESTINATION, host=by.host)


def _sent(message: Element, row: Row[Any], by: Reporter) -> None:
    _ae(message, by.ae_title, _SOURCE, requestor=True, host=by.host)
    _ae(message, str(row.detail.get("destination") or "unknown"), _DESTINATION)


def _stranger(message: Element, row: Row[Any], by: Reporter) -> None:
    host = str(row.detail.get("address") or "")
    _ae(message, str(row.detail.get("from") or "unknown"), _SOURCE, requestor=True, host=host)
    _ae(message, by.ae_title, _DESTINATION, host=by.host)


def _actor(message: Element, row: Row[Any], by: Reporter) -> None:
    _participant(message, by.ae_title if row.actor == "node" else row.actor, requestor=True, host=by.host)


def _visitor(message: Element, row: Row[Any], by: Reporter) -> None:
    _participant(message, row.actor, requestor=True, host=str(row.detail.get("address") or ""))
    _participant(message, by.ae_title, role=_APPLICATION, host=by.host)


def _ae(message: Element, ae: str, role: Code, *, requestor: bool = False, host: str = "") -> None:
    _participant(message, ae, role=role, requestor=requestor, host=host).set("AlternativeUserID", f"AETITLES={ae}")


def _participant(
    message: Element, user: str, *, role: Code | None = None, requestor: bool = False, host: str = ""
) -> Element:
    made = SubElement(message, "ActiveParticipant", UserID=user, UserIsRequestor=str(requestor).lower())
    if host:
        made.set("NetworkAccessPointID", host)
        made.set("NetworkAccessPointTypeCode", "2" if host.replace(".", "").isdigit() or ":" in host else "1")
    if role:
        _coded(made, "RoleIDCode", role)
    return made


def _study(message: Element, row: Row[Any]) -> None:
    study = _object(message, row.study_instance_uid)
    sop_class = row.result_class_uid or row.instance_class_uid
    if sop_class:
        count = 1 if row.result_class_uid else row.instance_count
        SubElement(study, "SOPClass", UID=sop_class, NumberOfInstances=str(count))


def _object(message: Element, study_instance_uid: str) -> Element:
    study = SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=study_instance_uid,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    _coded(study, "ParticipantObjectIDTypeCode", ("110180", "Study Instance UID"))
    return study


def _patient(message: Element, row: Row[Any]) -> None:
    patient = SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=row.patient_id or "unknown",
        ParticipantObjectTypeCode="1",
        ParticipantObjectTypeCodeRole="1",
    )
    names = {"csd-code": "2", "codeSystemName": "RFC-3881", "originalText": "Patient Number"}
    SubElement(patient, "ParticipantObjectIDTypeCode", names)


def _coded(parent: Element, name: str, code: Code) -> None:
    SubElement(parent, name, {"csd-code": code[0], "codeSystemName": "DCM", "originalText": code[1]})


_ACTIVITY: Code = ("110100", "Application Activity")
_TRANSFERRED: Code = ("110104", "DICOM Instances Transferred")
_PROCEDURE: Code = ("110111", "Procedure Record")
_ACCESSED: Code = ("110103", "DICOM Instances Accessed")
_AUTHENTICATION: Code = ("110114", "User Authentication")
_LOGIN: Code = ("110122", "Login")
_ALERT: Code = ("110113", "Security Alert")
_NODE: Code = ("110126", "Node Authentication")
_PEOPLE: Code = ("110137", "User Security Attributes Changed")
_STOP: Code = ("110121", "Application Stop")

_KINDS: dict[str, _Kind] = {
    Event.NODE_STARTED: _Kind(_ACTIVITY, "E", _process, ("110120", "Application Start")),
    Event.NODE_STOPPED: _Kind(_ACTIVITY, "E", _process, _STOP),
    Event.NODE_DIED: _Kind(_ACTIVITY, "E", _process, _STOP, SERIOUS_FAILURE),
    Event.ASSOCIATION_REJECTED: _Kind(_ALERT, "E", _stranger, _NODE, MINOR_FAILURE),
    Event.TLS_FAILED: _Kind(_ALERT, "E", _stranger, _NODE, MINOR_FAILURE),
    Event.INSTANCES_STORED: _Kind(_TRANSFERRED, "C", _handed_over),
    Event.SERIES_COMPLETE: _Kind(_TRANSFERRED, "C", _received),
    Event.DELIVERY_DONE: _Kind(_TRANSFERRED, "R", _sent),
    Event.DELIVERY_FAILED: _Kind(_TRANSFERRED, "R", _sent, outcome=SERIOUS_FAILURE),
    Event.IMAGES_DELETED: _Kind(("110105", "DICOM Study Deleted"), "D", _actor),
    Event.DATA_EXPORTED: _Kind(("110106", "Export"), "R", _actor),
    Event.LOGIN: _Kind(_AUTHENTICATION, "E", _visitor, _LOGIN),
    Event.LOGIN_FAILED: _Kind(_AUTHENTICATION, "E", _visitor, _LOGIN, MINOR_FAILURE),
    Event.LOGOUT: _Kind(_AUTHENTICATION, "E", _visitor, ("110123", "Logout")),
    Event.ACCESS_REFUSED: _Kind(_ALERT, "E", _visitor, ("110132", "Use of Restricted Function"), MINOR_FAILURE),
    Event.ACCOUNT_ADDED: _Kind(_ALERT, "E", _visitor, _PEOPLE),
    Event.ACCOUNT_CHANGED: _Kind(_ALERT, "E", _visitor, _PEOPLE),
    Event.TOKEN_ADDED: _Kind(_ALERT, "E", _visitor, _PEOPLE),
    Event.TOKEN_REVOKED: _Kind(_ALERT, "E", _visitor, _PEOPLE),
    Event.VIEWED: _Kind(_ACCESSED, "R", _visitor),
    Event.SENT_OUT: _Kind(_ACCESSED, "R", _visitor),
    Event.OPERATOR_RETRY: _Kind(_PROCEDURE, "U", _actor),
    Event.OPERATOR_CANCEL: _Kind(_PROCEDURE, "U", _actor),
    Event.OPERATOR_RESEND: _Kind(_PROCEDURE, "U", _actor),
}
