"""Sign in and out. Guessing is slowed down by name and by address; nobody learns which names exist."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dicom_node.admin.credentials import digest, draw_secret, hash_password, needs_rehash, verify_password
from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.gate import cookie_name
from dicom_node.admin.paper import page
from dicom_node.db import accounts
from dicom_node.domain.people import LONGEST_PASSWORD, Account, Visitor

WINDOW_S = 900.0
MOST_BOTH, MOST_NAME, MOST_ADDRESS = 5, 50, 30  # failures in a window: of a name from an address, of either alone

router = APIRouter(include_in_schema=False)


@router.get("/login")
def form(request: Request, next: str = "/") -> Response:  # noqa: A002 - as the link says
    """Show the form; whoever is signed in goes on."""
    if request.state.visitor is not None:
        return RedirectResponse(_inside(next), 303)
    with desk_of(request).reading() as tx:
        nobody = not accounts.list_accounts(tx)
    return page(request, "login.html", next=_inside(next), nobody=nobody)


@router.post("/login")
def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=LONGEST_PASSWORD)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    """Check name and password, and begin a session."""
    desk, address = desk_of(request), _address(request)
    typed = digest(name.strip().lower())
    with desk.reading() as tx:
        failed = accounts.count_failures(tx, typed, address, WINDOW_S)
        account = accounts.find_account(tx, name.strip().lower())
    if any(count >= most for count, most in zip(failed, (MOST_BOTH, MOST_NAME, MOST_ADDRESS), strict=True)):
        minutes = int(WINDOW_S // 60)
        raise HTTPException(429, f"Too many failed sign-ins. Wait {minutes} minutes.", {"retry-after": str(WINDOW_S)})
    known = account if account and account.active else None
    if not verify_password(known.password_hash if known else None, password) or known is None:
        with desk.writing() as tx:
            accounts.record_failure(tx, typed, address, account.name if account else "", WINDOW_S)
        return page(request, "login.html", 401, next=_inside(next), failed=True, name=name[:40], nobody=False)
    return _begin(request, desk, known, password, _inside(next))


@router.post("/logout")
def sign_out(request: Request) -> Response:
    """End the session."""
    visitor: Visitor = request.state.visitor
    if visitor.session:
        with desk_of(request).writing() as tx:
            accounts.close_session(tx, visitor)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(cookie_name(request), secure=request.url.scheme == "https", httponly=True, samesite="lax")
    answer.headers["clear-site-data"] = '"cache"'
    return answer


def _begin(request: Request, desk: Desk, account: Account, password: str, then: str) -> Response:
    secret = draw_secret()
    rehashed = hash_password(password) if needs_rehash(account.password_hash) else None
    longest_s = desk.settings.web.longest_s
    with desk.writing() as tx:
        if rehashed:
            accounts.keep_rehashed(tx, account.id, rehashed)
        accounts.open_session(tx, account, digest(secret), draw_secret(), _address(request), longest_s)
    answer = RedirectResponse(then, 303)
    https = request.url.scheme == "https"
    answer.set_cookie(cookie_name(request), secret, httponly=True, secure=https, samesite="lax", path="/")
    return answer


def _inside(target: str) -> str:
    """Keep a target that is a path of ours; anything else becomes the first page."""
    fine = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if fine and "\\" not in target else "/"


def _address(request: Request) -> str:
    return request.client.host[:64] if request.client else ""
