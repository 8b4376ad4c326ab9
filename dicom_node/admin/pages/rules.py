"""The rules: what each wants, tried on a series or a file, and replayed over the last days."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.pages.models import WEEK
from dicom_node.admin.paper import page
from dicom_node.db import overview
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import Right

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@router.get("/rules")
def rules(request: Request) -> Response:
    """List the rules."""
    desk = desk_of(request)
    with desk.reading() as tx:
        counted = overview.by_rule(tx, utc_now() - WEEK)
    return page(request, "rules.html", rules=desk.catalog.rules, counted=counted)
