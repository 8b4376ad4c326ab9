"""What is negotiated: services and roles, SOP classes, transfer syntaxes, AE parameters, rejections."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.admin.dicomweb import retrieve, search, store
from dicom_node.conformance.example import made
from dicom_node.conformance.markdown import Row, named
from dicom_node.deliver import association as scu
from dicom_node.deliver import retrieve as retrieval
from dicom_node.deliver.commitment import SERVICE as COMMITMENT
from dicom_node.deliver.query import SERVICE as QUERY
from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.receive import admission, classes
from dicom_node.receive.commitment import AVAILABILITY
from dicom_node.settings import DimseSettings, Node, Receive

_VERIFICATION = UID("1.2.840.10008.1.1")
_PLAIN = ", ".join(f"{syntax.name} {syntax}" for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian))


def services() -> list[Row]:
    """List every SOP class that we provide or use over DIMSE."""
    rows: list[Row] = [("SOP class", "User (SCU)", "Provider (SCP)", "Transfer syntaxes")]
    rows.append((named(_VERIFICATION.name, _VERIFICATION), "yes", "yes", "SCU: the uncompressed; SCP: all below"))
    rows.append((f"the {len(classes.storage_classes())} storage classes below", "no", "yes", "all below"))
    sent = {str(result.SOPClassUID): str(result.file_meta.TransferSyntaxUID) for result in made().values()}
    for sop_class, own in sorted(sent.items()):
        first = f"its own ({UID(own).name}), else {ImplicitVRLittleEndian.name}, re-encoded"
        rows.append((named(UID(sop_class).name, sop_class), "yes", "yes", first))
    either = "on the same association or a new one"
    reports = f"yes; takes N-EVENT-REPORT {either}", f"yes; reports {either}"
    for service, user, provider in (
        (COMMITMENT, *reports),
        (AVAILABILITY, "no", "yes"),
        (QUERY, "yes", "no"),
        (str(retrieval.MOVE), "yes: studies, to an AE title of ours", "no"),
        (
            str(retrieval.GET),
            f"yes: studies, of {len(retrieval.IMAGES) + len(retrieval.OTHERS)} storage classes",
            "no",
        ),
    ):
        rows.append((named(UID(service).name, service), user, provider, _PLAIN))
    return rows


def storage_classes() -> list[Row]:
    """List every storage class that is accepted."""
    known = sorted(classes.storage_classes(), key=lambda uid: (uid.name, uid))
    return [("Storage class", "UID"), *((uid.name, str(uid)) for uid in known)]


def transfer_syntaxes() -> list[Row]:
    """List every transfer syntax that is accepted."""
    known = sorted(classes.transfer_syntaxes(), key=lambda uid: [int(part) for part in uid.split(".")])
    return [("Transfer syntax", "UID"), *((uid.name, str(uid)) for uid in known)]


def identity() -> list[Row]:
    """Give what an association says of us."""
    return [
        ("Parameter", "Value"),
        ("Application context name", admission.APPLICATION_CONTEXT),
        ("Implementation class UID", IMPLEMENTATION_CLASS_UID),
        ("Implementation version name", IMPLEMENTATION_VERSION_NAME),
        ("Maximum PDU received", f"{admission.MAX_PDU} bytes as acceptor, {scu.MAX_PDU} as requestor"),
        (
            "Asynchronous operations window",
            f"as acceptor up to {admission.MOST_OPERATIONS} operations invoked, where the peer asks; 1 performed. "
            "As requestor not negotiated: one operation at a time",
        ),
        (
            "Associations at once",
            f"`receive.max_associations` as acceptor, {Receive().max_associations} by default; "
            f"of one address `receive.max_associations_per_peer`, {Receive().max_associations_per_peer}",
        ),
    ]


def rejections() -> list[Row]:
    """List why an association is rejected (PS3.8 table 9-21)."""
    when = {
        admission.NOT_DICOM: "the application context is not DICOM's",
        admission.NOT_CALLED: "the called AE title is none of `receive.called_ae`, by default `node.ae_title`",
        admission.NOT_ALLOWED: "the calling AE title is not in `receive.peers`, or not with what it shows",
        admission.NOT_IDENTIFIED: "the user of `receive.peers.user` is not identified, or in clear (PS3.7 D.3.3.7)",
        admission.TOO_MANY: "`receive.max_associations` are open, or `max_associations_per_peer` of this address",
    }
    return [("Result, source, reason", "When"), *((", ".join(map(str, numbers)), why) for numbers, why in when.items())]


def settings_of_the_listener() -> list[Row]:
    """List the AE parameters that a site sets, as an acceptor."""
    return [("Setting", "Default"), *_settings("node", Node), *_settings("receive", Receive)]


def settings_of_destinations() -> list[Row]:
    """List what a site sets of each destination that is an AE."""
    return [("Setting", "Default"), *_settings("destinations.NAME", DimseSettings)]


def _settings(section: str, model: type[BaseModel]) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        yield f"`{section}.{name}`", "required" if field.is_required() else _shown(field.get_default())


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value in ("", (), None):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def dicomweb_resources() -> list[Row]:
    """List what the web server answers as an origin server (PS3.18 section 10)."""
    routers = {"Store (STOW-RS)": store, "Retrieve (WADO-RS)": retrieve, "Search (QIDO-RS)": search}
    rows: list[Row] = [("Transaction", "Resource")]
    for name, module in routers.items():
        rows += [
            (name, f"`{path}`") for path in sorted(str(getattr(route, "path", "")) for route in module.router.routes)
        ]
    return rows
