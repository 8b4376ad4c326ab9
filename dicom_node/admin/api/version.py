"""What all of version 1 shares: rights, problems, cursors, and its OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.security import HTTPBearer
from starlette.responses import JSONResponse, Response

from dicom_node.admin.api.shapes import Problem
from dicom_node.admin.guard import needs
from dicom_node.domain.people import Right

PREFIX = "/api/v1"
MOST = 500
_MEANS = {
    400: "The request is malformed.",
    401: "No token, or one that is not valid.",
    403: "The token lacks the right.",
    404: "There is nothing of that name.",
    409: "The state forbids it.",
    422: "A value is not as it should be.",
    503: "The database is away; nothing was done.",
}

Limit = Annotated[int, Query(ge=1, le=MOST, description="At most so many.")]
Cursor = Annotated[str, Query(max_length=400, description="`next` of the part before.")]
_bearer = HTTPBearer(auto_error=False, description="A token, made under Password and tokens: `dn_…`")


def version_router(right: Right = Right.VIEW) -> APIRouter:
    """Make a router of this version whose routes all need a right."""
    problems = {
        status: {"description": told, "content": {"application/problem+json": {"schema": Problem.model_json_schema()}}}
        for status, told in _MEANS.items()
    }
    guards = [Depends(_bearer), Depends(needs(right))]
    return APIRouter(prefix=PREFIX, dependencies=guards, responses={**problems})  # type: ignore[dict-item]


router = APIRouter(prefix=PREFIX, include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])


@router.get("/openapi.json")
def document(request: Request) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(request.app.openapi())


def describe(site: FastAPI) -> None:
    """Make FastAPI's default answer to what does not validate ours in the document, too."""
    made = site.openapi

    def openapi() -> dict[str, Any]:
        if site.openapi_schema is None:
            schema = made()
            schema["info"]["description"] = "Jobs, series, results and deliveries of a dicom-node. See docs/api.md."
            schema.get("components", {}).get("schemas", {}).pop("HTTPValidationError", None)
            schema.get("components", {}).get("schemas", {}).pop("ValidationError", None)
        return site.openapi_schema or {}

    site.openapi = openapi  # type: ignore[method-assign]
