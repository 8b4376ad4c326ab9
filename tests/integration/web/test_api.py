"""The REST API: lists that page, actions that happen once, problems in one form, and no 5xx whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from sqlalchemy import func, select
from starlette.testclient import TestClient

from dicom_node.catalog import load_catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.domain.people import Right
from tests.ct import small_ct
from tests.integration.web.node import RULE, WebNode
from tests.integration.web.test_people import events
from tests.node import wait_for

Filled = tuple[WebNode, dict[str, str]]


@pytest.fixture
def node(either_node: WebNode) -> WebNode:
    """A node on either database."""
    return either_node


@pytest.fixture(scope="session")
def reader(filled: Filled) -> TestClient:
    node, _ = filled
    return node.client(node.token("vera", Right.VIEW))


def walk(client: TestClient, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    """Every item of a list, part by part."""
    cursor = ""
    for _ in range(500):
        answer = client.get(f"/api/v1{path}", params={**params, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        yield from answer.json()["items"]
        cursor = answer.json()["next"]
        if not cursor:
            return
    raise AssertionError("the list never ends")


@pytest.mark.parametrize(
    ("path", "table"),
    [("/jobs", t.job), ("/series", t.series), ("/results", t.result), ("/deliveries", t.delivery)],
)
def test_a_list_gives_every_row_once_whatever_the_size_of_a_part(
    filled: Filled, reader: TestClient, path: str, table: Any
) -> None:
    with transaction(filled[0].engine) as tx:
        expected = tx.scalar(select(func.count()).select_from(table))
    for limit in (1, 3, 500):
        ids = [item["id"] for item in walk(reader, path, limit=limit)]
        assert len(ids) == len(set(ids)) == expected


def test_the_audit_trail_is_for_admins_and_pages_as_well(filled: Filled, reader: TestClient) -> None:
    assert reader.get("/api/v1/audit").status_code == 403
    ann = filled[0].client(filled[0].token("ann", Right.VIEW, Right.ADMINISTER))
    ids = [item["id"] for item in walk(ann, "/audit", limit=40, actor="node")]
    assert ids == sorted(set(ids), reverse=True)
    (first,) = ann.get("/api/v1/audit", params={"event": "series refused"}).json()["items"]
    assert "A gap" in first["detail"]["reason"]


def test_jobs_filter_and_tell_as_the_command_line_does(filled: Filled, reader: TestClient) -> None:
    node, made = filled
    for params in ({"state": "failed"}, {"accession": "A-gap"}, {"patient": "P-gap"}, {"model": "none"}):
        got = [item["id"] for item in walk(reader, "/jobs", **params)]
        assert got == [job["id"] for job in node.jobs(**params)]
    job = reader.get(f"/api/v1/jobs/{made['completed'][:10]}").json()
    (same,) = node.jobs(job=made["completed"])
    assert job["results"][0]["summary"] == json.loads(json.dumps(same["results"][0]["summary"]))
    assert {d["state"] for d in job["deliveries"]} == {"delivered"}
    assert 0 < reader.get(f"/api/v1/jobs/{made['running']}").json()["progress"]["share"] < 1
    (story,) = reader.get("/api/v1/explain", params={"q": "A-few"}).json()
    assert story["answer"].startswith("No result: no rule matched")
    assert reader.get("/api/v1/models/lung_ct").json()["structures"][0]["label"] == "Left lung"
    assert reader.get("/api/v1/system").json()["jobs_running"] == 1
    assert [rule["name"] for rule in reader.get("/api/v1/rules").json()] == ["chest_ct"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/ffffffff", 404),
        ("/nowhere", 404),
        ("/jobs?limit=0", 422),
        ("/jobs?state=lost", 422),
        ("/jobs?since=2026-11-23T10:00:00", 422),
        ("/jobs?cursor=abc", 400),
        ("/jobs?cursor=WzEsMiwzXQ", 400),
    ],
)
def test_what_goes_wrong_is_told_as_a_problem(reader: TestClient, path: str, status: int) -> None:
    answer = reader.get(f"/api/v1{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_request_without_a_token_is_told_how_to_get_in(filled: Filled) -> None:
    answer = filled[0].client().get("/api/v1/jobs")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert filled[0].client("dn_wrong").get("/api/v1/jobs").status_code == 401


def test_an_action_under_one_key_happens_once(node: WebNode, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "ct", rows=16, columns=16))
    (job,) = node.jobs()
    otto = node.client(node.token("otto", Right.VIEW, Right.OPERATE))
    base, key = f"/api/v1/jobs/{job['id']}", {"Idempotency-Key": "4711"}
    assert otto.post(f"{base}/cancel").json() == {"job": job["id"], "canceled": True, "deliveries": 0}
    first = otto.post(f"{base}/retry", headers=key)
    again = otto.post(f"{base}/retry", headers=key)
    assert (first.status_code, again.status_code, len(node.jobs())) == (202, 202, 2)
    assert first.json() == again.json()
    assert otto.post(f"{base}/retry").status_code == 409, "without a key it is another one"
    assert otto.post(f"{base}/cancel", headers=key).status_code == 409, "the key was used for something else"
    ann = node.client(node.token("ann", Right.OPERATE))
    new = first.json()["job"]
    assert ann.post(f"/api/v1/jobs/{new}/cancel", headers=key).json()["canceled"], "keys are one's own"
    failing = {"Idempotency-Key": "4712"}
    assert otto.post(f"{base}/resend", headers=failing).status_code == 404
    assert otto.post(f"{base}/resend", headers=failing).status_code == 404, "what failed is not kept"
    assert [actor for actor, _ in events(node, "operator asked for a retry")] == ["user otto, token test"]


def test_the_rules_are_asked_again_by_the_api_as_they_are_now(node: WebNode, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "few", slices=5, rows=16, columns=16))
    assert node.jobs() == []
    otto = node.client(node.token("otto", Right.VIEW, Right.OPERATE))
    ((series,), key) = otto.get("/api/v1/series").json()["items"], {"Idempotency-Key": "0815"}
    path = f"/api/v1/series/{series['series_instance_uid']}/route"
    assert otto.post(path, headers=key).json() == otto.post(path, headers=key).json() == {"series": [series["id"]]}
    assert otto.post(path).status_code == 409, "it is being asked about already"
    assert otto.post("/api/v1/series/1.2.3/route").status_code == 404
    (node.settings.rules / "chest_ct.toml").write_text(RULE.replace("10", "3"))
    wait_for(lambda: otto.get("/api/v1/rules").json()[0]["conditions"][1].endswith(" 3"), 60)
    node.catalog = load_catalog(node.settings)
    node.sweep()
    assert [job["rule"] for job in node.jobs()] == ["chest_ct"]


def test_queues_and_destinations_by_the_api(node: WebNode) -> None:
    otto = node.client(node.token("otto", Right.VIEW, Right.OPERATE))
    paused = otto.post("/api/v1/queues/pacs/pause", json={"reason": "night"}).json()
    assert (paused["paused"], paused["reason"], paused["actor"]) == (True, "night", "user otto, token test")
    assert otto.get("/api/v1/destinations").json()[0]["paused"]
    assert [q["paused"] for q in otto.get("/api/v1/queues").json()] == [False, True]
    assert not otto.post("/api/v1/queues/pacs/resume").json()["paused"]
    assert "refused or unreachable" in otto.post("/api/v1/destinations/pacs/echo").json()["error"]
    vera = node.client(node.token("vera", *Right))
    assert vera.post("/api/v1/queues/pacs/pause").status_code == 403


def test_no_request_that_the_document_allows_or_forbids_ends_in_a_5xx(node: WebNode, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "ct", rows=16, columns=16))
    headers = {"authorization": f"Bearer {node.token('ann', *Right)}"}
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", node.site, headers=headers)
    operations = [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]
    assert len(operations) > 15
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=8,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            if case.path.endswith("/echo"):
                case.path_parameters["name"] = "none"  # the settings name a closed port, asked once is enough
            case.call_and_validate(headers=headers, checks=[not_a_server_error])

        ask()
