"""What a known visitor may do: rights, and that a form is one of ours."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from fastapi import HTTPException, Request

from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import PUBLIC, SAFE, visitor_of
from dicom_node.db.audit import record
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.people import Right, Visitor

FIELD, HEADER = "csrf", "x-csrf-token"


async def check_form(request: Request) -> None:
    """Refuse a change that does not carry the secret of its session. A token is no cookie and needs none."""
    visitor: Visitor | None = request.state.visitor
    if request.method in SAFE or visitor is None or not visitor.session or request.url.path in PUBLIC:
        return
    given = request.headers.get(HEADER)
    if given is None and "form" in request.headers.get("content-type", ""):
        given = str((await request.form()).get(FIELD, ""))
    if not hmac.compare_digest((given or "").encode(), visitor.csrf.encode()):
        raise HTTPException(403, "The form is out of date. Load the page again.")


def needs(right: Right) -> Callable[[Request], Visitor]:
    """Make a dependency that lets only those pass who have a right, and writes down who wanted to and had not."""

    def check(request: Request) -> Visitor:
        visitor = visitor_of(request)
        if visitor.may(right):
            return visitor
        told = {"method": request.method, "path": request.scope["route"].path, "needs": right.value}
        with desk_of(request).writing() as tx:
            record(tx, AuditEvent(Event.ACCESS_REFUSED, actor=visitor.actor, detail=told))
        raise HTTPException(403, f"This needs the right to {right.value}, which {visitor.name} does not have here.")

    return check
