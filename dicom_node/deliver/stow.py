"""STOW-RS to a destination (PS3.18 section 10.5), and QIDO-RS to see whether it has the object (section 10.6).

One request for each object, its bytes streamed from the file as they are. The server says of each instance whether it
took it, and with which reason not; the reasons are those of C-STORE (PS3.18 annex I.2).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import urllib3
from pydicom.uid import UID

from dicom_node.deliver.status import judge
from dicom_node.deliver.stored import check_bytes, readable
from dicom_node.deliver.web import JSON, Service, service
from dicom_node.domain.delivery import Delivery, Sent, StowDestination
from dicom_node.domain.proof import Proof
from dicom_node.errors import DeliveryError

TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122  # PS3.18 table 10.5.3-2
STORED_WITH_WARNINGS = 0xB000
SLOWEST_BYTES_PER_S = 64 * 1024
_PIECE = 256 * 1024
_FAILED, _REFERENCED, _OTHER = "00081198", "00081199", "0008119A"
_FAILURE_REASON, _WARNING_REASON, _SOP_INSTANCE = "00081197", "00081196", "00081155"
_UID_RETURNED, _SERIES_INSTANCES = "00080018", "00201209"


def send(destination: StowDestination, path: Path, delivery: Delivery) -> Sent:
    """Send one stored object; uncompressed, when the server does not take its transfer syntax.

    Raises
    ------
    DeliveryError
        When the server did not take it; `retry` says whether it may later.
    """
    check_bytes(path, delivery)
    with service(destination) as web:
        try:
            return _store(web, destination, path, delivery)
        except DeliveryError as error:
            if error.status != TRANSFER_SYNTAX_NOT_SUPPORTED or not UID(delivery.transfer_syntax_uid).is_compressed:
                raise
        plain = BytesIO()
        readable(path, destination.name).save_as(plain, enforce_file_format=True)
        return _store(web, destination, plain.getvalue(), delivery)


def find(destination: StowDestination, proofs: Sequence[Proof]) -> set[str]:
    """Ask a destination which of some objects it has: one search for each series of ours.

    Raises
    ------
    DeliveryError
        When it does not answer, or refuses.
    """
    found: set[str] = set()
    with service(destination) as web:
        for (study, series), _ in groupby(sorted(proofs, key=_series), key=_series):
            found |= _instances(web, destination, study, series)
    return found & {proof.sop_instance_uid for proof in proofs}


def echo(destination: StowDestination) -> float:
    """Prove that the service answers a search; the seconds that it took.

    Raises
    ------
    DeliveryError
        When it does not.
    """
    started = time.monotonic()
    with service(destination) as web:
        answer = web.request("GET", "/studies", allowed_s=destination.timeout_s, fields={"limit": "1"})
        if answer.status not in (200, 204):
            raise web.refused(answer, "a search")
    return time.monotonic() - started


def _store(web: Service, destination: StowDestination, content: Path | bytes, delivery: Delivery) -> Sent:
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    foot = f"\r\n--{boundary}--\r\n".encode()
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    answer = web.request(
        "POST",
        "/studies",
        allowed_s=destination.timeout_s + size / SLOWEST_BYTES_PER_S,
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + size + len(foot)),
        },
        body=_pieces(head, content, foot),
    )
    if answer.status in (200, 202, 409):
        return _judge(web, destination, answer, delivery.sop_instance_uid)
    raise web.refused(answer, "a store")


def _judge(web: Service, destination: StowDestination, answer: urllib3.BaseHTTPResponse, sop_instance_uid: str) -> Sent:
    """Look what the response says of our instance: 200 all stored, 202 not all or with warnings, 409 none."""
    said = _json(answer)
    said = said if isinstance(said, dict) else {}
    for item in _items(said, _REFERENCED):
        if _first(item, _SOP_INSTANCE) == sop_instance_uid:
            return Sent(_reason(item, _WARNING_REASON, STORED_WITH_WARNINGS))
    for item in (*_items(said, _FAILED), *_items(said, _OTHER)):
        if _first(item, _SOP_INSTANCE) in (sop_instance_uid, None):
            return judge(destination.name, _reason(item, _FAILURE_REASON, 0x0110) or 0x0110)
    if answer.status == 409:
        raise web.refused(answer, "a store")
    return Sent(0x0000 if answer.status == 200 else STORED_WITH_WARNINGS)


def _instances(web: Service, destination: StowDestination, study: str, series: str) -> set[str]:
    wanted = {"includefield": _UID_RETURNED}
    matches = _search(web, destination, f"/studies/{study}/series/{series}/instances", wanted)
    return {str(_first(match, _UID_RETURNED)) for match in matches}


def _search(web: Service, destination: StowDestination, path: str, fields: dict[str, str]) -> list[dict[str, Any]]:
    answer = web.request("GET", path, allowed_s=destination.timeout_s, fields=fields)
    if answer.status in (204, 404):  # some answer 404 for a study that they do not have
        return []
    if answer.status != 200:
        raise web.refused(answer, "a search")
    matches = _json(answer)
    if not isinstance(matches, list):
        raise DeliveryError(f"{destination.name} answered a search with something that is no {JSON}", retry=True)
    return [match for match in matches if isinstance(match, dict)]


def count(destination: StowDestination, study: str, series: str) -> int:
    """Ask a destination by QIDO-RS how many instances it has of a series; 0 where it does not know the series.

    Raises
    ------
    DeliveryError
        When it does not answer, or refuses.
    """
    wanted = {"SeriesInstanceUID": series, "includefield": _SERIES_INSTANCES}
    with service(destination) as web:
        matches = _search(web, destination, f"/studies/{study}/series", wanted)
        if not matches:
            return 0
        told = _first(matches[0], _SERIES_INSTANCES)
        return int(told) if str(told or "").isdigit() else len(_instances(web, destination, study, series))


def _pieces(head: bytes, content: Path | bytes, foot: bytes) -> Iterator[bytes]:
    yield head
    if isinstance(content, bytes):
        yield content
    else:
        with content.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    yield foot


def _json(answer: urllib3.BaseHTTPResponse) -> Any:
    try:
        return json.loads(answer.data) if answer.data else None
    except ValueError:
        return None  # XML, or a page for people: the status has to do


def _items(ds: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = ds.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _first(ds: dict[str, Any], tag: str) -> Any:
    element = ds.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _reason(ds: dict[str, Any], tag: str, unreadable: int) -> int:
    """Give the status that an element holds: 0 where there is none, `unreadable` where it is no number."""
    told = _first(ds, tag)
    try:
        return int(told or 0)
    except (TypeError, ValueError):
        return unreadable


def _series(proof: Proof) -> tuple[str, str]:
    return proof.study_instance_uid, proof.series_instance_uid
