"""STOW-RS (PS3.18 10.5): instances come in over HTTP and go the road of C-STORE, as fast as the disk takes them.

==========  ================================================================================================
200         every instance is synced and committed, now or earlier with the same bytes
202         some are; the others are named with their reasons
409         none is, and sending the same again will not help
503         none is, because the disk is full or the database away: send again later
400, 413    the body is broken, or larger than the settings allow; what came before that is stored all the same
415, 406    parts of another kind than application/dicom; a client that takes no application/dicom+json
==========  ================================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

from fastapi import APIRouter, Depends, HTTPException, Request
from sqlalchemy import Connection
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.dicomweb.accept import accepted
from dicom_node.admin.dicomweb.multipart import PartReader, boundary_of
from dicom_node.admin.dicomweb.search import DicomJSON
from dicom_node.admin.dicomweb.shelf import shelf_of
from dicom_node.admin.dicomweb.taken import Taken
from dicom_node.admin.gate import TooLargeError, visitor_of
from dicom_node.admin.guard import needs
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.db.instances import RELEASED, Sender, end_association
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.people import Right
from dicom_node.domain.uids import is_uid

router = APIRouter(prefix="/dicom-web", include_in_schema=False, dependencies=[Depends(needs(Right.STORE))])

CALLING_AE = "STOW"
_KIND = "application/dicom"
JSON = "application/dicom+json"
_AGAIN_S = 30


@router.post("/studies")
@router.post("/studies/{study}")
async def store(request: Request, study: str = "") -> Response:
    """Take instances, of one study or of any, and say of each what became of it."""
    if study and not is_uid(study):
        raise HTTPException(400, "The study is not named by a UID.")
    accepted(request, JSON)
    reader = PartReader(boundary_of(request.headers.get("content-type", ""), _KIND))
    desk, shelf = desk_of(request), shelf_of(request)
    sender = _sender(request)
    taken = Taken(shelf.storage, sender, study, desk.settings.web)
    broken: HTTPException | None = None
    try:
        await _take_all(request, reader, taken, desk.settings.receive.idle_timeout_s)
    except ClientDisconnect:
        broken = HTTPException(400, "The connection was closed before the end of the body.")
    except TooLargeError:
        broken = HTTPException(413, f"A request may have {desk.settings.web.store_request_mib} MiB.")
    except HTTPException as error:
        broken = error
    finally:
        taken.abandon()
    await taken.settle()
    how = f"aborted: {broken.detail}" if broken else RELEASED
    if taken.stored or taken.refused:
        shelf.storage.tell(partial(_tell, sender, visitor_of(request).actor, taken, how))
    if broken:
        already = f" {taken.stored} instances that came before are stored." if taken.stored else ""
        raise HTTPException(broken.status_code, f"{broken.detail}{already}")
    return _answer(taken, f"{str(request.base_url).rstrip('/')}{router.prefix}")


def _sender(request: Request) -> Sender:
    return Sender(
        id=str(uuid4()),
        calling_ae=CALLING_AE,
        called_ae=desk_of(request).settings.node.ae_title,
        address=request.client.host[:64] if request.client else "",
        implementation=request.headers.get("user-agent", ""),
        started_at=utc_now(),
        account=visitor_of(request).name,
    )


async def _take_all(request: Request, reader: PartReader, taken: Taken, idle_s: float) -> None:
    async for data in _pieces(request, idle_s):
        for found in reader.feed(data):
            await taken.take(found)
    if not reader.has_ended:
        raise HTTPException(400, "The body ends before its closing boundary.")


async def _pieces(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes; whoever sends nothing for too long is not waited for."""
    stream = request.stream()
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, None), idle_s)
        except TimeoutError:
            raise HTTPException(408, f"Nothing came for {idle_s:g} s.") from None
        if piece is None:
            return
        yield piece


def _tell(sender: Sender, actor: str, taken: Taken, how: str, tx: Connection) -> None:
    """Write down how the request ended: on the SCP's side that is the end of an association."""
    end_association(tx, sender, reason=how, stored=taken.stored, refused=taken.refused)
    detail = {
        "stored": taken.stored,
        "refused": taken.refused,
        "studies": taken.studies[:10],
        "address": sender.address,
    }
    record(tx, AuditEvent(Event.INSTANCES_STORED, association_id=sender.id, actor=actor, detail=detail))


def _answer(taken: Taken, root: str) -> Response:
    if not (taken.stored or taken.refused):
        raise HTTPException(400, "The body holds no instance.")
    status = 200 if not taken.refused else 202 if taken.stored else 503 if taken.may_pass else 409
    answer = DicomJSON(taken.response(root).to_json_dict(), status)
    if taken.refused:
        answer.headers["warning"] = f'299 dicom-node "{"; ".join(taken.reasons)[:500]}"'
    if status == 503:
        answer.headers["retry-after"] = str(_AGAIN_S)
    return answer
