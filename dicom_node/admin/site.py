"""The application: routes, and how what goes wrong is told."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import dicom_node
from dicom_node.admin import api, dicomweb, ohif, signin, single_sign_on
from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.dicomweb.shelf import Shelf
from dicom_node.admin.gate import Gate, TooLargeError
from dicom_node.admin.guard import check_form
from dicom_node.admin.pages import ROUTERS as PAGES
from dicom_node.admin.paper import page
from dicom_node.admin.problem import problem, speaks_json, status_of, title_of
from dicom_node.admin.provider import Provider
from dicom_node.admin.trail import Lately
from dicom_node.db import overview
from dicom_node.db.engine import is_away
from dicom_node.errors import NodeError
from dicom_node.metrics import CONTENT_TYPE, Metrics

_log = logging.getLogger(__name__)
_STATIC = Path(str(files("dicom_node.admin") / "static"))

health = APIRouter(prefix="/health", include_in_schema=False)
metrics = APIRouter(include_in_schema=False)


def build_site(desk: Desk) -> FastAPI:
    """Make the application.

    Every route but those of `gate.PUBLIC` is behind the gate; every change needs the secret of its session's forms.
    """
    site = FastAPI(
        title="dicom-node",
        version=dicom_node.__version__,
        docs_url=None,  # they load script from other hosts
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(check_form)],
    )
    site.state.desk = desk
    site.state.lately = Lately()
    site.state.shelf = Shelf(desk)
    site.state.provider = Provider(desk.settings.oidc) if desk.settings.oidc else None
    site.state.metrics = Metrics(desk.settings, desk.engine, desk.spool)
    site.add_middleware(Gate, desk=desk)
    site.mount("/static", _Static(directory=_STATIC))
    people = signin.router, single_sign_on.router
    for router in (health, metrics, *people, *PAGES, api.router, *api.ROUTERS, *dicomweb.ROUTERS, ohif.router):
        site.include_router(router)
    api.describe(site)
    _tell_errors(site)
    return site


@health.get("/live")
def live() -> Response:
    """Say that this process answers."""
    return JSONResponse({"status": "ok"})


@health.get("/ready")
def ready(request: Request) -> Response:
    """Say whether the database answers and the spool has room: nothing about patients, nothing about versions."""
    desk = desk_of(request)
    try:
        with desk.reading() as tx:
            overview.ping(tx)
    except SQLAlchemyError:
        return JSONResponse({"status": "unavailable", "why": "the database does not answer"}, 503)
    if desk.spool.is_full():
        return JSONResponse({"status": "unavailable", "why": "the spool is full"}, 503)
    return JSONResponse({"status": "ok"})


@metrics.get("/metrics")
def scrape(request: Request) -> Response:
    """Give the numbers to a collector, in the text format of Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.exposition(), media_type=CONTENT_TYPE)


class _Static(StaticFiles):
    """Style and script: they say nothing of patients and may be kept for a while."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["cache-control"] = "public, max-age=3600"
        return answer


def _tell_errors(site: FastAPI) -> None:
    def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, NodeError)
        status = status_of(error)
        if status == 500:
            return unforeseen(request, error)
        return _told(request, status, str(error))

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = str(error.detail) if error.detail != title_of(error.status_code) else ""
        answer = _told(request, error.status_code, detail)
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        wrong = [{"at": list(map(str, one["loc"])), "what": one["msg"]} for one in error.errors()]
        if speaks_json(request.url.path):
            return problem(422, title_of(422), "The request is not as it should be.", errors=wrong)
        told = "; ".join(f"{one['at'][-1]}: {one['what']}" for one in wrong)
        return _told(request, 400, told)

    def database(request: Request, error: Exception) -> Response:
        if isinstance(error, DataError):
            return _told(request, 400, "A value holds characters or numbers that no database can keep.")
        if not is_away(error):
            return unforeseen(request, error)
        answer = _told(request, 503, "The database does not answer. What you asked for was not done; try again.")
        answer.headers["retry-after"] = "5"
        return answer

    def unforeseen(request: Request, error: Exception) -> Response:
        reference = uuid4().hex[:12]
        route = getattr(request.scope.get("route"), "path", "no route")
        _log.error("%s %s failed, reference %s", request.method, route, reference, exc_info=error)
        return _told(request, 500, f"This was not foreseen. The node's log has it under {reference}.")

    def too_large(request: Request, error: Exception) -> Response:
        return _told(request, 413, "The body is too large.")

    site.add_exception_handler(NodeError, ours)
    site.add_exception_handler(HTTPException, http)
    site.add_exception_handler(RequestValidationError, invalid)
    site.add_exception_handler(SQLAlchemyError, database)
    site.add_exception_handler(TooLargeError, too_large)
    site.add_exception_handler(Exception, unforeseen)


def _told(request: Request, status: int, detail: str) -> Response:
    if speaks_json(request.url.path):
        return problem(status, title_of(status), detail)
    return page(request, "error.html", status, status=status, title=title_of(status), detail=detail)
