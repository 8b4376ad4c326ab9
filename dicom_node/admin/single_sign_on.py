"""Sign in with the hospital's account (OpenID Connect). Each attempt works once, in the browser that began it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dicom_node.admin.credentials import digest, draw_secret
from dicom_node.admin.desk import desk_of
from dicom_node.admin.provider import Provider
from dicom_node.admin.signin import address_of, begin, inside
from dicom_node.db import attempts
from dicom_node.db.accounts import sign_in_from_outside
from dicom_node.db.audit import record
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.people import account_name
from dicom_node.errors import ConflictError, SignInRefused
from dicom_node.settings import Oidc

router = APIRouter(prefix="/login/oidc", include_in_schema=False)

_COOKIE = "dicom-node-signing-in"


@router.get("")
def start(request: Request, next: str = "/") -> Response:  # noqa: A002 - as the link says
    """Send the browser to the provider."""
    provider = _provider(request)
    state, nonce, verifier, browser = (draw_secret() for _ in range(4))
    where = provider.address(_back(request), state, nonce, verifier)
    attempt = attempts.Attempt(digest(state), digest(browser), nonce, verifier, inside(next))
    with desk_of(request).writing() as tx:
        if not attempts.begin(tx, attempt):
            raise HTTPException(429, "Too many sign-ins are under way. Try again in some minutes.")
    answer = RedirectResponse(where, 303)
    https = request.url.scheme == "https"
    answer.set_cookie(
        _cookie(request), browser, max_age=attempts.LONGEST_S, httponly=True, secure=https, samesite="lax"
    )
    return answer


@router.get("/callback")
def back(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
    """Take what the provider sends the browser back with, and begin a session."""
    provider, desk = _provider(request), desk_of(request)
    settings = desk.settings.oidc
    assert settings is not None
    try:
        with desk.writing() as tx:
            attempt = attempts.take(tx, digest(state), digest(request.cookies.get(_cookie(request), "")))
        if attempt is None:
            raise SignInRefused("This sign-in is over, was used before, or began in another browser. Sign in again.")
        if error or not code:
            raise SignInRefused(f"The sign-in service let nobody in: {error[:80] or 'no code'}.")
        claims = provider.claims(code, _back(request), attempt.nonce, attempt.verifier)
        name, role = _who(claims, settings)
        with desk.writing() as tx:
            subject = f"{settings.issuer} {claims['sub']}"[:400]
            account = sign_in_from_outside(tx, name, role, subject, actor=settings.issuer[:64])
    except (SignInRefused, ConflictError) as refusal:
        told = {"address": address_of(request), "by": settings.issuer, "reason": str(refusal)}
        with desk.writing() as tx:
            record(tx, AuditEvent(Event.LOGIN_FAILED, actor="nobody", detail=told))
        raise SignInRefused(str(refusal)) from refusal
    answer = begin(request, account, attempt.target, by=settings.issuer)
    answer.delete_cookie(_cookie(request), secure=request.url.scheme == "https", httponly=True, samesite="lax")
    return answer


@router.get("/out")
def out(request: Request) -> Response:
    """Go on to the provider's own page for signing out, where it has one."""
    return RedirectResponse(_provider(request).way_out(f"{request.base_url!s}login") or "/login", 303)


def _provider(request: Request) -> Provider:
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise HTTPException(404)
    return provider


def _who(claims: dict[str, Any], settings: Oidc) -> tuple[str, Any]:
    """Find the name and the role that the claims give somebody."""
    said = claims.get(settings.groups_claim)
    groups = {str(one) for one in said} if isinstance(said, list) else {str(said)} if said else set()
    role = settings.role_of(groups)
    if role is None:
        raise SignInRefused(
            f"You are known, but none of your {len(groups)} groups has a role here. "
            "Ask the node's administrator: oidc.roles in its settings says which groups have one."
        )
    told = str(claims.get(settings.name_claim) or "")
    try:
        return account_name("".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in told)[:40]), role
    except ValueError:
        raise SignInRefused(f"The sign-in service tells no usable name in {settings.name_claim}.") from None


def _back(request: Request) -> str:
    return f"{request.base_url}login/oidc/callback"


def _cookie(request: Request) -> str:
    return f"__Host-{_COOKIE}" if request.url.scheme == "https" else _COOKIE
