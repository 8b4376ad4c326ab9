"""Who gets in, what each may do, and what is written down of it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import select, update
from starlette.testclient import TestClient

from dicom_node.admin import signin
from dicom_node.admin.gate import COOKIE, PUBLIC, PUBLIC_FOLDER
from dicom_node.cli import cli
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.domain.people import Right
from tests.integration.web.node import PASSWORD, WebNode


@pytest.fixture
def node(either_node: WebNode) -> WebNode:
    """A node on either database."""
    return either_node


def events(node: WebNode, kind: str) -> list[tuple[str, dict[str, object]]]:
    with transaction(node.engine) as tx:
        event = t.audit_event.c
        return [(row.actor, row.detail) for row in tx.execute(select(t.audit_event).where(event.event == kind))]


def csrf(browser: TestClient) -> str:
    found = re.search(r'name="csrf" content="([^"]+)"', browser.get("/account").text)
    assert found is not None
    return found[1]


def routes(node: WebNode) -> list[tuple[str, str]]:
    """Method and an address of every route."""
    found = []
    for context in iter_route_contexts(node.site.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            path = re.sub(r"\{[^}]*\}", "1", context.path_format or "")
            found += [(method, path) for method in sorted(route.methods or ())]
    return found


def test_an_unknown_client_gets_nothing_but_the_form_the_style_and_the_health(node: WebNode) -> None:
    stranger = node.client()
    asked = routes(node)
    assert len(asked) > 30
    for method, path in asked:
        answer = stranger.request(method, path)
        if path in PUBLIC:
            continue
        to_form = answer.status_code == 303 and answer.headers["location"].startswith("/login")
        assert to_form or answer.status_code == 401, (method, path, answer.status_code)
        assert "AINODE" not in answer.text
    for path in ("/openapi.json", "/docs", "/api/v1/openapi.json", "/metrics", "/nowhere", "/static/../settings.toml"):
        assert stranger.get(path).status_code in (303, 401, 404)
    assert stranger.get(f"{PUBLIC_FOLDER}site.css").status_code == 200
    assert stranger.get("/health/live").json() == stranger.get("/health/ready").json() == {"status": "ok"}


def test_every_answer_forbids_foreign_and_inline_code_and_keeping(node: WebNode) -> None:
    for path in ("/login", "/", "/health/live", "/static/site.css", "/api/v1/jobs"):
        headers = node.client().get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http:" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == ("public, max-age=3600" if "static" in path else "no-store")


def test_signing_in_gives_a_session_that_no_script_reads_and_signing_out_ends_it(node: WebNode) -> None:
    browser = node.client()
    answer = browser.post("/login", data={"name": " Vera", "password": PASSWORD, "next": "/models"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/models")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}=")
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert attribute in cookie
    secret = cookie.split("=")[1].split(";")[0]
    with transaction(node.engine) as tx:
        assert secret not in str(tx.execute(select(t.web_session)).all()), "only a digest is kept"
    assert browser.get("/models").status_code == 200
    assert browser.post("/logout", data={"csrf": csrf(browser)}).status_code == 303
    browser.cookies.set(f"__Host-{COOKIE}", secret, domain="node.test")
    assert browser.get("/models").status_code == 303, "the session is over, whoever kept the cookie"
    assert [actor for actor, _ in events(node, "signed in") + events(node, "signed out")] == ["user vera"] * 2


def test_the_form_leads_nowhere_else(node: WebNode) -> None:
    for target in ("//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)", ""):
        answer = node.client().post("/login", data={"name": "vera", "password": PASSWORD, "next": target})
        assert answer.headers["location"] == "/"


def test_guessing_is_slowed_down_and_tells_nobody_which_names_exist(node: WebNode) -> None:
    stranger = node.client()
    answers = [stranger.post("/login", data={"name": name, "password": "wrong"}) for name in ("vera", "nobody")]
    assert [a.status_code for a in answers] == [401, 401]
    assert answers[0].text.replace("vera", "") == answers[1].text.replace("nobody", "")
    for _ in range(signin.MOST_BOTH - 1):
        stranger.post("/login", data={"name": "vera", "password": "wrong"})
    locked = stranger.post("/login", data={"name": "vera", "password": PASSWORD})
    assert locked.status_code == 429
    assert locked.headers["retry-after"] == "900", "whole seconds (RFC 9110 10.2.3)"
    assert stranger.post("/login", data={"name": "otto", "password": PASSWORD}).status_code == 303, "others get in"
    with transaction(node.engine) as tx:
        tx.execute(update(t.login_failure).values(at=utc_now() - timedelta(seconds=signin.WINDOW_S + 1)))
    assert stranger.post("/login", data={"name": "vera", "password": PASSWORD}).status_code == 303
    told = events(node, "sign-in failed")
    assert len(told) == signin.MOST_BOTH + 1
    assert {detail["account"] for _, detail in told} == {"vera", "unknown"}
    assert "nobody" not in str([detail for _, detail in told]), "people type passwords into the wrong field"


def test_a_session_ends_when_idle_and_after_its_longest_time(node: WebNode) -> None:
    browser = node.signed_in("vera")
    web = node.settings.web
    for column, seconds in ((t.web_session.c.seen_at, web.idle_s), (t.web_session.c.created_at, web.longest_s)):
        with transaction(node.engine) as tx:
            tx.execute(update(t.web_session).values({column: utc_now() - timedelta(seconds=seconds - 30)}))
        assert browser.get("/queue", headers={"x-background": "1"}).status_code == 200
        with transaction(node.engine) as tx:
            seen = tx.scalar(select(t.web_session.c.seen_at))
            assert seen is not None
            if column is t.web_session.c.seen_at:
                assert utc_now() - seen > timedelta(seconds=web.idle_s - 60), "a page that refreshes itself is nobody"
            tx.execute(update(t.web_session).values({column: utc_now() - timedelta(seconds=seconds + 1)}))
        assert browser.get("/queue").status_code == 303
        assert browser.get("/queue", headers={"x-background": "1"}).status_code == 401
        with transaction(node.engine) as tx:
            tx.execute(update(t.web_session).values(seen_at=utc_now(), created_at=utc_now()))
    assert browser.get("/queue").status_code == 200


def test_a_change_needs_the_secret_of_its_session_and_comes_from_our_own_pages(node: WebNode) -> None:
    browser = node.signed_in("otto")
    good = csrf(browser)
    path = "/queues/jobs/pause"
    for data in ({}, {"csrf": ""}, {"csrf": "x" * 43}, {"csrf": csrf(node.signed_in("ann"))}):
        assert browser.post(path, data=data).status_code == 403
    for foreign in ({"origin": "https://evil.test"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert browser.post(path, data={"csrf": good}, headers=foreign).status_code == 403
        assert (
            node.client().post("/login", data={"name": "vera", "password": PASSWORD}, headers=foreign).status_code
            == 403
        )
    assert events(node, "queue paused") == []
    own = {"origin": "https://node.test", "sec-fetch-site": "same-origin"}
    assert browser.post(path, data={"csrf": good}, headers=own).status_code == 303
    assert [actor for actor, _ in events(node, "queue paused")] == ["user otto"]


def test_a_role_allows_what_it_says_and_refusals_are_written_down(node: WebNode) -> None:
    for name, acts, administers in (("vera", 403, 403), ("otto", 303, 403), ("ann", 303, 303)):
        browser = node.signed_in(name)
        data = {"csrf": csrf(browser)}
        assert browser.post("/queues/jobs/pause", data=data).status_code == acts
        if acts == 303:
            assert browser.post("/queues/jobs/resume", data=data).status_code == 303
        assert browser.post("/people/vera", data={**data, "role": "viewer"}).status_code == administers
        assert browser.get("/audit").status_code == (200 if administers == 303 else 403)
        assert ("/people" in browser.get("/").text) == (administers == 303), "no link that leads to a refusal"
    refused = events(node, "access refused")
    assert [actor for actor, _ in refused].count("user vera") == 3
    assert refused[0][1] == {"method": "POST", "path": "/queues/{name}/pause", "needs": "operate"}


def test_a_disabled_account_a_new_password_and_a_lower_role_count_at_once(node: WebNode) -> None:
    ann, otto = node.signed_in("ann"), node.signed_in("otto")
    token = node.token("otto", Right.VIEW, Right.OPERATE)
    data = {"csrf": csrf(ann)}
    assert ann.post("/people/otto", data={**data, "role": "viewer"}).status_code == 303
    assert otto.post("/queues/jobs/pause", data={"csrf": csrf(otto)}).status_code == 403
    assert node.client(token).post("/queues/jobs/pause").status_code == 403, "nor more than its owner may"
    assert ann.post("/people/otto", data={**data, "active": "false"}).status_code == 303
    assert otto.get("/").status_code == 303
    assert node.client(token).get("/models").status_code == 303
    assert node.client().post("/login", data={"name": "otto", "password": PASSWORD}).status_code == 401
    assert ann.post("/people/ann", data={**data, "role": "viewer"}).status_code == 409, "somebody has to be left"

    other = node.signed_in("ann")
    changed = ann.post("/account/password", data={**data, "old": PASSWORD, "new": "another long password"})
    assert changed.status_code == 200
    assert (ann.get("/").status_code, other.get("/").status_code) == (200, 303)
    assert ann.post("/account/password", data={**data, "old": PASSWORD, "new": "yet another one"}).status_code == 400
    assert "password" not in str(events(node, "account changed")).replace("'password': 'changed'", "")


def test_a_token_is_shown_once_has_no_more_rights_than_given_and_can_be_revoked(node: WebNode) -> None:
    browser = node.signed_in("otto")
    data = {"csrf": csrf(browser), "name": "night <script>", "days": "30"}
    made = browser.post("/account/tokens", data={**data, "rights": ["view", "administer"]})
    secret = re.search(r"dn_[\w-]{43}", made.text)
    assert secret is not None
    assert secret[0] not in browser.get("/account").text
    program = node.client(secret[0])
    assert program.get("/models").status_code == 200
    assert program.post("/queues/jobs/pause").status_code == 403
    assert program.get("/audit").status_code == 403
    assert events(node, "token added")[0][1]["rights"] == ["view"], "not what otto has not himself"
    assert browser.post("/account/tokens", data={**data, "rights": "administer"}).status_code == 400
    with transaction(node.engine) as tx:
        token_id = tx.scalar(select(t.api_token.c.id))
        tx.execute(update(t.api_token).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert program.get("/models").status_code == 303
    with transaction(node.engine) as tx:
        tx.execute(update(t.api_token).values(expires_at=None))
    vera = node.signed_in("vera")
    assert vera.post(f"/account/tokens/{token_id}/revoke", data={"csrf": csrf(vera)}).status_code == 404
    assert browser.post(f"/account/tokens/{token_id}/revoke", data={"csrf": csrf(browser)}).status_code == 303
    assert program.get("/models").status_code == 303


def test_accounts_are_made_on_the_command_line(node: WebNode) -> None:
    def user(*words: str, typed: str = "") -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["user", *words, "--settings", str(node.settings.file)], input=typed)
        return done.exit_code, done.output

    assert user("add", "Eve", "--role", "operator", "--password-stdin", typed="a very long one\n")[0] == 0
    assert user("add", "eve", "--password-stdin", typed="a very long one\n")[0] == 1
    assert user("add", "e v e", "--password-stdin", typed="a very long one\n")[0] == 2
    for weak in ("short", "aaaaaaaaaaaaaaa", "mallory12345"):
        assert user("add", "mallory", "--password-stdin", typed=f"{weak}\n")[0] == 2
    assert node.client().post("/login", data={"name": "eve", "password": "a very long one"}).status_code == 303
    assert "operator" in user("list")[1]
    assert user("disable", "ann")[0] == 1
    assert user("role", "eve", "admin")[0] == user("disable", "ann")[0] == 0
    assert user("password", "eve", "--password-stdin", typed="quite another one\n")[0] == 0
    assert node.client().post("/login", data={"name": "eve", "password": "quite another one"}).status_code == 303


def test_a_settings_file_that_would_send_passwords_in_clear_text_is_refused(node: WebNode, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('rules = "."\n[web]\naddress = "0.0.0.0"\n')
    done = CliRunner().invoke(cli, ["check", "--settings", str(file)])
    assert done.exit_code == 2
    assert "web: passwords would cross the network in clear text on 0.0.0.0" in done.output
