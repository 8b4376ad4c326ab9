"""What the models are, in the words of their cards, and how they do here."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.db import overview
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import Right
from dicom_node.errors import NotFoundError

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])
WEEK = timedelta(days=7)


@router.get("/models")
def models(request: Request) -> Response:
    """List the models."""
    desk = desk_of(request)
    with desk.reading() as tx:
        counted = overview.by_model(tx, utc_now() - WEEK)
        usual = {name: overview.usual_s(tx, name) for name in desk.catalog.models}
    return page(request, "models.html", models=desk.catalog.models.values(), counted=counted, usual=usual)


@router.get("/models/{name}")
def model(request: Request, name: str) -> Response:
    """Show one card, whole."""
    desk = desk_of(request)
    card = desk.catalog.models.get(name)
    if card is None:
        raise NotFoundError("this node has no such model")
    with desk.reading() as tx:
        counted = overview.by_model(tx, utc_now() - WEEK).get(name, {})
        usual = overview.usual_s(tx, name)
        computing = overview.model_seconds(tx, name)
        memory = overview.usual_memory(tx, name, card.digest)
    readme = card.bundle / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    rules = [rule for rule in desk.catalog.rules if rule.model == name]
    told = {"usual": usual, "computing": computing, "memory": memory}
    return page(request, "model.html", card=card, counted=counted, readme=text, rules=rules, **told)
