"""The audit trail, for those who look after it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.db import browse
from dicom_node.domain.audit import Event
from dicom_node.domain.people import Right

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.ADMINISTER))])
_PAGE = 100


@router.get("/audit")
def audit(
    request: Request,
    event: Annotated[str, Query(max_length=64)] = "",
    actor: Annotated[str, Query(max_length=64)] = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> Response:
    """Show the events, newest first."""
    with desk_of(request).reading() as tx:
        found = browse.list_events(tx, limit=_PAGE + 1, before=before, event=event, actor=actor.strip())
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    asked = {"event": event, "actor": actor, "before": before}
    return page(request, "audit.html", events=found[:_PAGE], more=more, kinds=list(Event), **asked)
