"""Sign in and out. Guessing is slowed down by name and by address; nobody learns which names exist."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dicom_node.admin.credentials import digest, draw_secret, hash_password, needs_rehash, verify_password
from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import cookie_name
from dicom_node.admin.paper import page
from dicom_node.db import accounts
from dicom_node.domain.people import LONGEST_PASSWORD, Account, Visitor

WINDOW_S = 900.0
MOST_BOTH, MOST_NAME, MOST_ADDRESS = 5, 50, 30  # failures in a window: of a name from an address, of either alone

router = APIRouter(include_in_schema=False)


@router.get("/login")
def form(request: Request, next: str = "/", out: bool = False) -> Response:  # noqa: A002 - as the link says
    """Show the form; whoever is signed in goes on."""
    if request.state.visitor is not None:
        return RedirectResponse(inside(next), 303)
    with desk_of(request).reading() as tx:
        nobody = not accounts.list_accounts(tx)
    return page(request, "login.html", next=inside(next), nobody=nobody, out=out)


@router.post("/login")
def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=LONGEST_PASSWORD)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    """Check name and password, and begin a session."""
    desk, address = desk_of(request), address_of(request)
    typed = digest(name.strip().lower())
    with desk.reading() as tx:
        failed = accounts.count_failures(tx, typed, address, WINDOW_S)
        account = accounts.find_account(tx, name.strip().lower())
    if any(count >= most for count, most in zip(failed, (MOST_BOTH, MOST_NAME, MOST_ADDRESS), strict=True)):
        minutes = int(WINDOW_S // 60)
        raise HTTPException(
            429, f"Too many failed sign-ins. Wait {minutes} minutes.", {"retry-after": f"{WINDOW_S:.0f}"}
        )
    known = account if account and account.active else None
    if not verify_password(known.password_hash if known else None, password) or known is None:
        with desk.writing() as tx:
            accounts.record_failure(tx, typed, address, account.name if account else "", WINDOW_S)
        return page(request, "login.html", 401, next=inside(next), failed=True, name=name[:40], nobody=False)
    if needs_rehash(known.password_hash):
        rehashed = hash_password(password)
        with desk.writing() as tx:
            accounts.keep_rehashed(tx, known.id, rehashed)
    return begin(request, known, inside(next))


@router.post("/logout")
def sign_out(request: Request) -> Response:
    """End the session."""
    visitor: Visitor = request.state.visitor
    if visitor.session:
        with desk_of(request).writing() as tx:
            accounts.close_session(tx, visitor)
    answer = RedirectResponse("/login?out=true" if desk_of(request).settings.oidc else "/login", 303)
    answer.delete_cookie(cookie_name(request), secure=request.url.scheme == "https", httponly=True, samesite="lax")
    answer.headers["clear-site-data"] = '"cache"'
    return answer


def begin(request: Request, account: Account, then: str, *, by: str = "") -> Response:
    """Begin a session and go on. `by`: who vouched for the account, when it was not a password of ours."""
    desk, secret = desk_of(request), draw_secret()
    with desk.writing() as tx:
        csrf, address, longest_s = draw_secret(), address_of(request), desk.settings.web.longest_s
        accounts.open_session(tx, account, digest(secret), csrf, address, longest_s, by)
    answer = RedirectResponse(then, 303)
    https = request.url.scheme == "https"
    answer.set_cookie(cookie_name(request), secret, httponly=True, secure=https, samesite="lax", path="/")
    return answer


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host[:64] if request.client else ""


def inside(target: str) -> str:
    """Keep a target that is a path of ours; anything else becomes the first page."""
    fine = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if fine and "\\" not in target else "/"
