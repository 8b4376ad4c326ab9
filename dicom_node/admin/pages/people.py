"""One's own password and tokens; for an admin, everybody's."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from dicom_node.admin.credentials import TOKEN_PREFIX, digest, draw_secret, hash_password, verify_password
from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.admin.guard import needs
from dicom_node.admin.paper import page
from dicom_node.db import accounts
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import LONGEST_PASSWORD, Right, Role, account_name, check_password

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])
_may_administer = Depends(needs(Right.ADMINISTER))
Password = Annotated[str, Form(max_length=LONGEST_PASSWORD)]
EXPIRY_DAYS = (30, 90, 365)


@router.get("/account")
def account(request: Request) -> Response:
    """Show one's own account."""
    return _account_page(request)


@router.post("/account/password")
def change_password(request: Request, old: Password, new: Password) -> Response:
    """Change one's own password; other sessions end."""
    desk, visitor = desk_of(request), visitor_of(request)
    with desk.reading() as tx:
        mine = accounts.find_account(tx, visitor.name)
    if mine is None or not verify_password(mine.password_hash, old):
        return _account_page(request, 400, wrong="The old password is not the one.")
    try:
        check_password(new, visitor.name)
    except ValueError as error:
        return _account_page(request, 400, wrong=f"{str(error).capitalize()}.")
    hashed = hash_password(new)
    with desk.writing() as tx:
        accounts.change_account(
            tx, visitor.name, actor=visitor.actor, password_hash=hashed, keep_session=visitor.session
        )
    return _account_page(request, done="The password is changed; other sessions of yours have ended.")


@router.post("/account/tokens")
def add_token(
    request: Request,
    name: Annotated[str, Form(min_length=1, max_length=40)],
    rights: Annotated[list[Right], Form()],
    days: Annotated[int, Form(ge=1, le=366)] = 90,
) -> Response:
    """Make a token; its secret is shown once."""
    desk, visitor = desk_of(request), visitor_of(request)
    if visitor.token:
        raise HTTPException(403, "A token cannot make tokens.")
    granted = [right for right in Right if right in rights and visitor.may(right)]
    if not granted:
        raise HTTPException(400, "A token needs at least one right, and can have none that you have not.")
    secret = TOKEN_PREFIX + draw_secret()
    expires = utc_now() + timedelta(days=days)
    with desk.writing() as tx:
        accounts.add_token(tx, visitor.account_id, name.strip(), digest(secret), granted, expires, actor=visitor.actor)
    return _account_page(request, secret=secret)


@router.post("/account/tokens/{token_id}/revoke")
def revoke(request: Request, token_id: str) -> Response:
    """Make a token worthless: one's own, or as an admin anybody's."""
    visitor = visitor_of(request)
    mine = "" if visitor.may(Right.ADMINISTER) else visitor.account_id
    with desk_of(request).writing() as tx:
        accounts.revoke_token(tx, token_id, actor=visitor.actor, account_id=mine)
    return RedirectResponse("/account", 303)


@router.get("/people", dependencies=[_may_administer])
def people(request: Request) -> Response:
    """List the accounts and tokens."""
    return _people_page(request)


@router.post("/people", dependencies=[_may_administer])
def add(
    request: Request, name: Annotated[str, Form(max_length=200)], role: Annotated[Role, Form()], password: Password
) -> Response:
    """Make an account."""
    try:
        checked = account_name(name)
        check_password(password, checked)
    except ValueError as error:
        return _people_page(request, 400, wrong=f"{str(error).capitalize()}.")
    hashed = hash_password(password)
    with desk_of(request).writing() as tx:
        accounts.add_account(tx, checked, role, hashed, actor=visitor_of(request).actor)
    return RedirectResponse("/people", 303)


@router.post("/people/{name}", dependencies=[_may_administer])
def change(
    request: Request,
    name: str,
    role: Annotated[Role | None, Form()] = None,
    active: Annotated[bool | None, Form()] = None,
) -> Response:
    """Change a role, disable or enable."""
    with desk_of(request).writing() as tx:
        accounts.change_account(tx, name, actor=visitor_of(request).actor, role=role, active=active)
    return RedirectResponse("/people", 303)


def _account_page(
    request: Request, status: int = 200, *, wrong: str = "", done: str = "", secret: str = ""
) -> Response:
    with desk_of(request).reading() as tx:
        tokens = accounts.list_tokens(tx, visitor_of(request).account_id)
    told = {"wrong": wrong, "done": done, "secret": secret, "tokens": tokens}
    return page(request, "account.html", status, days=EXPIRY_DAYS, all_rights=list(Right), **told)


def _people_page(request: Request, status: int = 200, *, wrong: str = "") -> Response:
    with desk_of(request).reading() as tx:
        everybody, tokens = accounts.list_accounts(tx), accounts.list_tokens(tx)
    return page(request, "people.html", status, people=everybody, tokens=tokens, roles=list(Role), wrong=wrong)
