"""How errors are told: problem details (RFC 9457) to programs, a page to people."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from dicom_node.errors import (
    ConfigurationError,
    ConflictError,
    DeliveryError,
    GeometryError,
    NodeError,
    NotFoundError,
    ProviderAway,
    RequestError,
    SignInRefused,
    SpoolError,
)

STATUS: dict[type[NodeError], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    ConfigurationError: 409,
    GeometryError: 422,
    RequestError: 422,
    DeliveryError: 502,
    ProviderAway: 502,
    SignInRefused: 403,
    SpoolError: 410,  # the row is there, the file is gone
}


class ProblemResponse(JSONResponse):
    """A body of ``application/problem+json``."""

    media_type = "application/problem+json"


def problem(status: int, title: str, detail: str = "", *, retry_after_s: int = 0, **more: Any) -> ProblemResponse:
    """Make an answer that says what went wrong."""
    body = {"type": "about:blank", "title": title, "status": status, **more}
    if detail:
        body["detail"] = detail
    return ProblemResponse(body, status, {"retry-after": str(retry_after_s)} if retry_after_s else None)


def status_of(error: NodeError) -> int:
    """Find the HTTP status of an error of ours."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def title_of(status: int) -> str:
    """Say a status in words."""
    return HTTPStatus(status).phrase


def speaks_json(path: str) -> bool:
    """Whether who asks for a path is a program."""
    return path.startswith(("/api/", "/dicom-web", "/health/", "/metrics"))
