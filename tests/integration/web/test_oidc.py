"""Sign-in at the hospital's OpenID provider: a real one over HTTP, honest and lying; and local accounts beside it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from sqlalchemy import select, update
from starlette.testclient import TestClient

from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.errors import ConfigurationError
from dicom_node.settings import load_settings
from tests.integration.web.node import PASSWORD, WebNode, web_node
from tests.integration.web.openid import CLIENT, SECRET, OpenIdProvider

ROLES = 'roles = { viewer = ["radiology"], operator = ["pacs"], admin = ["ai-admins", "root"] }\n'


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    made = OpenIdProvider()
    yield made
    made.close()


@pytest.fixture
def hospital(provider: OpenIdProvider, tmp_path: Path, database: Path) -> Iterator[WebNode]:
    """A node that trusts the provider."""
    home = tmp_path / "node"
    home.mkdir()
    copyfile(database, home / "node.db")
    (home / "oidc.secret").write_text(SECRET + "\n")
    section = f'[oidc]\nissuer = "{provider.issuer}"\nclient_id = "{CLIENT}"\nclient_secret_file = "oidc.secret"\n'
    with web_node(home, more=section + ROLES) as node:
        yield node


def go(node: WebNode, *, browser: TestClient | None = None) -> tuple[TestClient, str]:
    """Follow a browser to the provider; the address that it is sent back to."""
    browser = browser or node.client()
    there = browser.get("/login/oidc?next=/models")
    assert there.status_code == 303
    with urllib3.PoolManager(retries=False) as pool:
        sent = pool.request("GET", there.headers["location"], redirect=False)
    assert sent.status == 302
    return browser, sent.headers["location"].removeprefix("https://node.test")


def sign_in(node: WebNode) -> tuple[TestClient, Any]:
    browser, back = go(node)
    return browser, browser.get(back)


def logins(node: WebNode) -> list[tuple[str, str, dict[str, Any]]]:
    with transaction(node.engine) as tx:
        event = t.audit_event.c
        rows = tx.execute(select(t.audit_event).where(event.event.like("%sign%")).order_by(event.id))
        return [(row.event, row.actor, row.detail) for row in rows]


def test_who_signs_in_there_has_the_role_of_the_groups_and_no_password_here(
    hospital: WebNode, provider: OpenIdProvider
) -> None:
    assert "Sign in with your hospital account" in hospital.client().get("/login").text
    browser, answer = sign_in(hospital)
    assert (answer.status_code, answer.headers["location"]) == (303, "/models"), answer.text
    assert browser.get("/models").status_code == 200
    assert browser.get("/people").status_code == 403
    ((event, actor, detail),) = logins(hospital)
    assert (event, actor, detail["by"]) == ("signed in", "user frieda.hall", provider.issuer)
    assert hospital.client().post("/login", data={"name": "frieda.hall", "password": ""}).status_code == 401

    provider.person["groups"] = ["radiology", "root", "other"]
    again, _ = sign_in(hospital)
    assert again.get("/people").status_code == 200, "the highest of the groups' roles"
    provider.person |= {"groups": "pacs", "preferred_username": "married.now"}
    third, _ = sign_in(hospital)
    assert third.get("/people").status_code == 403
    with transaction(hospital.engine) as tx:
        outside = tx.execute(select(t.account).where(t.account.c.subject.is_not(None))).all()
    assert [(row.name, row.role) for row in outside] == [("frieda.hall", "operator")], "the same person, renamed there"

    token = third.get("/account").text.partition('name="csrf" content="')[2].partition('"')[0]
    out = third.post("/logout", data={"csrf": token})
    assert out.headers["location"] == "/login?out=true"
    assert third.get("/models").status_code == 303
    assert "/login/oidc/out" in third.get("/login?out=true").text
    assert third.get("/login/oidc/out").headers["location"].startswith(f"{provider.issuer}/out?client_id={CLIENT}")


def test_groups_may_come_with_the_user_info(hospital: WebNode, provider: OpenIdProvider) -> None:
    del provider.person["groups"]
    provider.info = {"sub": "4711", "groups": ["ai-admins"], "preferred_username": "ignored"}
    browser, answer = sign_in(hospital)
    assert answer.status_code == 303
    assert browser.get("/people").status_code == 200
    provider.info["sub"] = "another"
    assert "told of somebody else" in sign_in(hospital)[1].text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nonce": "of another sign-in"}, "nonce is another"),
        ({"aud": "another-client"}, "aud is another"),
        ({"aud": [CLIENT, "another"]}, "azp is another"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "azp is another"),
        ({"iss": "https://evil.test"}, "iss is another"),
        ({"exp": 1000}, "out of date"),
        ({"exp": None}, "cannot be proven"),
        ({"nonce": None}, "cannot be proven"),
        ({"sub": None}, "cannot be proven"),
        ({"iat": 4_000_000_000}, ""),
        ({"groups": ["kitchen"]}, "none of your 1 groups has a role here"),
        ({"groups": []}, "none of your 0 groups has a role here"),
        ({"preferred_username": ""}, "no usable name"),
        ({"preferred_username": "ann"}, "The name ann belongs to another account"),
    ],
)
def test_a_token_that_is_not_for_this_sign_in_lets_nobody_in_and_says_why(
    hospital: WebNode, provider: OpenIdProvider, change: dict[str, Any], why: str
) -> None:
    provider.change = lambda claims: {k: v for k, v in {**claims, **change}.items() if v is not None}
    browser, answer = sign_in(hospital)
    assert answer.status_code == 403
    assert why in answer.text
    assert browser.get("/models").status_code == 303
    ((event, actor, detail),) = logins(hospital)
    assert (event, actor) == ("sign-in failed", "nobody")
    assert why in detail["reason"]


def test_a_key_that_the_provider_does_not_own_up_to_proves_nothing(hospital: WebNode, provider: OpenIdProvider) -> None:
    own = provider.key
    for stranger in (RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "unheard of"})):
        provider.key = stranger
        assert "cannot be proven" in sign_in(hospital)[1].text
    provider.key, provider.algorithm = own, "PS256"
    assert sign_in(hospital)[1].status_code == 303


def _unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


def test_nothing_that_others_could_have_signed_proves_anything(hospital: WebNode, provider: OpenIdProvider) -> None:
    def with_our_secret(claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET), algorithms=["HS256"])

    for forged in (_unsigned, with_our_secret, lambda claims: "no.token.at all"):
        provider.forged = forged
        assert "cannot be proven" in sign_in(hospital)[1].text


def test_a_new_key_is_looked_up(hospital: WebNode, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sign_in(hospital)[1].status_code == 303
    provider.key = RSAKey.generate_key(2048, {"kid": "2"})
    provider.published.append(provider.key)
    assert "cannot be proven" in sign_in(hospital)[1].text, "not looked up twice in half a minute"
    monkeypatch.setattr("dicom_node.admin.provider._LOOK_AGAIN_S", 0.0)
    assert sign_in(hospital)[1].status_code == 303


def test_a_sign_in_works_once_in_the_browser_that_began_it(hospital: WebNode, provider: OpenIdProvider) -> None:
    over = "This sign-in is over"
    browser, back = go(hospital)
    assert over in hospital.client().get(back).text, "a link that somebody was sent"
    first = browser.get(back)
    assert first.status_code == 303, "which has not used it up"
    assert over in browser.get(back).text, "replayed"
    browser, back = go(hospital)
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert over in browser.get(back.replace(state, "x" * 43)).text
    assert "let nobody in: access_denied" in browser.get(f"/login/oidc/callback?state={state}&error=access_denied").text
    browser, back = go(hospital)
    provider.codes.clear()
    assert "gave no token: invalid_grant" in browser.get(back).text
    browser, back = go(hospital)
    with transaction(hospital.engine) as tx:
        at = tx.scalar(select(t.login_attempt.c.at))
        assert at is not None
        tx.execute(update(t.login_attempt).values(at=at.fromtimestamp(time.time() - 601, at.tzinfo)))
    assert over in browser.get(back).text


def test_a_disabled_account_is_out_whatever_the_provider_says(hospital: WebNode) -> None:
    browser, _ = sign_in(hospital)
    with transaction(hospital.engine) as tx:
        tx.execute(update(t.account).where(t.account.c.name == "frieda.hall").values(state="disabled"))
    assert browser.get("/models").status_code == 303
    assert "is disabled here" in sign_in(hospital)[1].text


def test_without_the_provider_the_accounts_of_the_node_still_get_in(
    hospital: WebNode, provider: OpenIdProvider
) -> None:
    provider._server.socket.close()
    answer = hospital.client().get("/login/oidc")
    assert answer.status_code == 502
    assert "does not answer" in answer.text
    assert hospital.client().post("/login", data={"name": "ann", "password": PASSWORD}).status_code == 303


def test_a_node_without_the_section_offers_nothing(node: WebNode) -> None:
    assert "oidc" not in node.client().get("/login").text
    assert [node.client().get(f"/login/oidc{p}").status_code for p in ("", "/callback", "/out")] == [404] * 3


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ('issuer = "http://login.test"\n' + ROLES, "issuer"),
        ('issuer = "https://login.test"\nroles = {}\n', "no group has a role"),
        ('issuer = "https://login.test"\nscopes = ["profile"]\n' + ROLES, "openid"),
        ('issuer = "https://login.test"\nclient_secret = "a"\nclient_secret_file = "b"\n' + ROLES, "one of"),
    ],
)
def test_settings_that_would_let_in_nobody_or_anybody_are_refused(tmp_path: Path, wrong: str, why: str) -> None:
    (tmp_path / "settings.toml").write_text(f'[oidc]\nclient_id = "x"\n{wrong}')
    with pytest.raises(ConfigurationError, match=why):
        load_settings(tmp_path / "settings.toml", {})
