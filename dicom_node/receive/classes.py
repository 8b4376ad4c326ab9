"""What may be stored: the storage classes, and the transfer syntaxes that they come in.

Files are kept as they come, so nothing that has an identity is turned away for its class or its encoding. The two lists
are those of pydicom's and pynetdicom's dictionaries together, what is retired included: old devices live long.
"""

from __future__ import annotations

from functools import cache

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

# These have neither study nor series (PS3.4 annex GG), or are no composite objects: there is no place for them here.
_NO_IMAGES = {
    "1.2.840.10008.1.3.10": "Media Storage Directory Storage",
    "1.2.840.10008.5.1.1.27": "Stored Print Storage",
    "1.2.840.10008.5.1.4.1.1.200.1": "CT Defined Procedure Protocol Storage",
    "1.2.840.10008.5.1.4.1.1.200.3": "Protocol Approval Storage",
    "1.2.840.10008.5.1.4.1.1.200.7": "XA Defined Procedure Protocol Storage",
    "1.2.840.10008.5.1.4.1.1.201.1": "Inventory Storage",
    "1.2.840.10008.5.1.4.38.1": "Hanging Protocol Storage",
    "1.2.840.10008.5.1.4.39.1": "Color Palette Storage",
    "1.2.840.10008.5.1.4.43.1": "Generic Implant Template Storage",
    "1.2.840.10008.5.1.4.44.1": "Implant Assembly Template Storage",
    "1.2.840.10008.5.1.4.45.1": "Implant Template Group Storage",
}
# Not encodings of a data set on the wire: a MIME document, XML, and a file format of its own.
_NO_DATA_SET = {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20"}


@cache
def storage_classes() -> frozenset[UID]:
    """Give every class that a peer may send without being named anywhere."""
    known = {str(cx.abstract_syntax) for cx in AllStoragePresentationContexts if cx.abstract_syntax is not None}
    listed = {uid for uid, (name, kind, *_) in UID_dictionary.items() if kind == "SOP Class" and _stores(name)}
    return frozenset(UID(uid) for uid in (known | listed) - {*_NO_IMAGES})


@cache
def transfer_syntaxes() -> frozenset[UID]:
    """Give every transfer syntax that we take."""
    listed = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}
    return frozenset(UID(uid) for uid in (listed | {*ALL_TRANSFER_SYNTAXES}) - _NO_DATA_SET)


def is_other_service(uid: UID) -> bool:
    """Whether the standard knows this class, and it is for something else than storing: a query, a worklist."""
    return str(uid) in UID_dictionary and uid not in storage_classes()


def _stores(name: str) -> bool:
    return "Storage" in name and "Commitment" not in name
