"""Who asks. Nothing behind the gate is reached by an unknown client but what `PUBLIC` names.

It also puts on every answer what keeps a browser from doing harm with it, and holds bodies to a size.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_node.admin.credentials import digest
from dicom_node.admin.desk import Desk
from dicom_node.admin.problem import problem, speaks_json
from dicom_node.db import accounts
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import Visitor

PUBLIC = ("/login", "/login/oidc", "/login/oidc/callback", "/login/oidc/out", "/health/live", "/health/ready")
PUBLIC_FOLDER = "/static/"
SAFE = ("GET", "HEAD", "OPTIONS")
COOKIE = "dicom-node-session"
_TOUCH_EVERY = timedelta(seconds=60)
_MIB = 1024 * 1024
_MOST_BODY = 16 * _MIB

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",  # what is shown is about patients
}


class Gate:
    """ASGI middleware, outside of everything else; see the module."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        guarded = _guarded(send, scope["scheme"] == "https")
        refusal = await self._look(scope)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, _limited(receive, self._most(scope["path"])), guarded)

    async def _look(self, scope: Scope) -> Response | None:
        """Find who asks; what to answer instead of going on, if anything."""
        request = Request(scope)
        hosts = self._desk.settings.web.hosts
        if hosts and request.url.hostname not in hosts:
            return problem(400, "Unknown host", "This node does not answer to that host name.")
        most = self._most(scope["path"])
        if _declared(request.headers) > most:
            return problem(413, "Too large", f"A request may have {most // _MIB} MiB.")
        try:
            visitor = await run_in_threadpool(self._visitor, request)
        except SQLAlchemyError:
            if is_public(scope["path"], self._desk):
                visitor = None
            else:
                return problem(503, "Database away", "The database does not answer. Try again.", retry_after_s=5)
        if request.method not in SAFE and (visitor is None or visitor.session) and is_cross_site(request.headers):
            return problem(403, "Cross-site request", "The request comes from another site.")
        if visitor is None and not is_public(scope["path"], self._desk):
            return _sign_in(request)
        scope.setdefault("state", {})["visitor"] = visitor
        return None

    def _most(self, path: str) -> int:
        """How long a body may be, in bytes: STOW-RS has a limit of its own."""
        return self._desk.settings.web.store_request_mib * _MIB if path.startswith("/dicom-web/") else _MOST_BODY

    def _visitor(self, request: Request) -> Visitor | None:
        kind, _, credential = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._by_token(digest(credential.strip()))
        cookie = request.cookies.get(cookie_name(request))
        return self._by_session(digest(cookie), request) if cookie else None

    def _by_session(self, session: str, request: Request) -> Visitor | None:
        web = self._desk.settings.web
        with self._desk.reading() as tx:
            found = accounts.find_session(tx, session, web.idle_s, web.longest_s)
        if found is None:
            return None
        visitor, seen_at = found
        # what a page asks by itself is no sign that somebody is there
        if "x-background" not in request.headers and utc_now() - seen_at > _TOUCH_EVERY:
            with self._desk.writing() as tx:
                accounts.touch_session(tx, session)
        return visitor

    def _by_token(self, token: str) -> Visitor | None:
        with self._desk.reading() as tx:
            found = accounts.find_token(tx, token)
        if found is None:
            return None
        visitor, token_id, used_at = found
        if used_at is None or utc_now() - used_at > _TOUCH_EVERY:
            with self._desk.writing() as tx:
                accounts.touch_token(tx, token_id)
        return visitor


def is_public(path: str, desk: Desk) -> bool:
    """Whether anybody may ask for a path."""
    return path in PUBLIC or path.startswith(PUBLIC_FOLDER) or (path == "/metrics" and desk.settings.web.metrics_open)


def cookie_name(request: Request) -> str:
    """Name the cookie of a session; over HTTPS with the prefix that binds it to this host (RFC 6265bis 4.1.3)."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


def is_cross_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another site makes it ask."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _sign_in(request: Request) -> Response:
    if speaks_json(request.url.path) or "x-background" in request.headers:
        answer = problem(401, "Not signed in", "Give a token: Authorization: Bearer dn_…")
        answer.headers["www-authenticate"] = 'Bearer realm="dicom-node"'
        return answer
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = f"?next={quote(wanted, safe='')}" if request.method == "GET" and wanted != "/" else ""
    return RedirectResponse(f"/login{back}", 303)


def _declared(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


def _limited(receive: Receive, most: int) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise TooLargeError
        return message

    return limited


class TooLargeError(Exception):
    """A body without a length turned out too long."""


def _guarded(send: Send, https: bool) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _also(_HEADERS.items(), https):
                headers.setdefault(name, value)
        await send(message)

    return guarded


def _also(headers: Iterable[tuple[str, str]], https: bool) -> Iterable[tuple[str, str]]:
    yield from headers
    if https:
        yield "strict-transport-security", "max-age=31536000"


def visitor_of(request: Request) -> Visitor:
    """Return who asks; behind the gate there always is somebody."""
    visitor: Any = request.state.visitor
    assert isinstance(visitor, Visitor)
    return visitor
