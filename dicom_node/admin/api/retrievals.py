"""Studies asked back from archives: batches to read, to make and to end."""

from __future__ import annotations

from fastapi import Request
from sqlalchemy import Connection

from dicom_node import operate
from dicom_node.admin.api import shapes
from dicom_node.admin.api.actions import Key, once
from dicom_node.admin.api.version import Limit, version_router
from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.pages.retrievals import CHANGES
from dicom_node.admin.trail import viewed
from dicom_node.db import retrievals as db
from dicom_node.domain.people import Right
from dicom_node.domain.retrieval import Kind

lists = version_router()
actions = version_router(Right.OPERATE)


@lists.get("/retrievals", tags=["retrievals"])
def retrievals(request: Request, limit: Limit = 50) -> list[shapes.Retrieval]:
    """List batches of studies that are asked back from an archive, newest first."""
    with desk_of(request).reading() as tx:
        return [shapes.Retrieval.model_validate(one) for one in db.list_batches(tx, limit)]


@lists.get("/retrievals/{retrieval}", tags=["retrievals"])
def retrieval(request: Request, retrieval: str) -> shapes.RetrievalWithItems:
    """Read a batch and what became of each item; the first characters of its id are enough."""
    with desk_of(request).reading() as tx:
        full = db.find_batch(tx, retrieval).id
        told, items = db.read_batch(tx, full), db.list_items(tx, full)
    viewed(request, "api retrieval", retrieval=full, items=len(items))
    return shapes.RetrievalWithItems.model_validate({**told, "listed": [dict(one._mapping) for one in items]})


@actions.post("/retrievals", status_code=202, tags=["retrievals"])
def start(request: Request, asked: shapes.NewRetrieval, key: Key = "") -> shapes.StartedRetrieval:
    """Ask studies back from a destination that answers queries."""
    desk, actor = desk_of(request), visitor_of(request).actor
    items = [(Kind.ACCESSION, one) for one in asked.accessions] + [(Kind.STUDY, one) for one in asked.studies]

    def act(tx: Connection) -> shapes.StartedRetrieval:
        made, cautions = operate.retrieve(
            tx,
            desk.settings,
            asked.source,
            items,
            how=asked.how,
            called=asked.called_ae,
            hours=asked.hours,
            per_minute=asked.per_minute,
            actor=actor,
        )
        return shapes.StartedRetrieval(retrieval=made, cautions=cautions)

    return once(request, key, asked, act, shapes.StartedRetrieval)


@actions.post("/retrievals/{retrieval}/pause", tags=["retrievals"])
def pause(request: Request, retrieval: str, key: Key = "") -> shapes.Retrieval:
    """Hold a batch; the study that is under way is finished."""
    return _change(request, retrieval, "pause", key)


@actions.post("/retrievals/{retrieval}/resume", tags=["retrievals"])
def resume(request: Request, retrieval: str, key: Key = "") -> shapes.Retrieval:
    """Let a batch go on."""
    return _change(request, retrieval, "resume", key)


@actions.post("/retrievals/{retrieval}/cancel", tags=["retrievals"])
def cancel(request: Request, retrieval: str, key: Key = "") -> shapes.Retrieval:
    """End a batch; the archive is told to stop (C-CANCEL), and what came stays."""
    return _change(request, retrieval, "cancel", key)


def _change(request: Request, retrieval: str, change: str, key: str) -> shapes.Retrieval:
    actor = visitor_of(request).actor

    def act(tx: Connection) -> shapes.Retrieval:
        full = db.change_batch(tx, retrieval, CHANGES[change], actor=actor)
        return shapes.Retrieval.model_validate(db.read_batch(tx, full))

    return once(request, key, None, act, shapes.Retrieval)
