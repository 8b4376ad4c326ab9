"""Studies asked back, from the pages and by the API: who may, what is told, what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from dicom_node.db import retrievals
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.domain.people import Right
from dicom_node.domain.retrieval import ItemState
from tests.integration.web.node import WebNode, make_database, web_node
from tests.integration.web.test_people import csrf

MORE = """
[retrieve]
enabled = true
[destinations.archive]
kind = "stow"
url = "http://127.0.0.1:9/dicom-web"
[destinations.drop]
kind = "folder"
path = "drop"
"""
LIST = "Study Date;Accession Number\n20260101;A<b>1\n20260102;A2\n20260102;A2\n"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    url = f"sqlite:///{tmp_path / 'web.db'}"
    make_database(url)
    with web_node(tmp_path / "node", url, more=MORE) as made:
        yield made


def events(node: WebNode) -> list[tuple[str, str]]:
    a = t.audit_event.c
    with transaction(node.engine) as tx:
        found = tx.execute(select(a.event, a.actor).where(a.event.like("retrieval%")).order_by(a.id)).all()
    return [(row.event, row.actor) for row in found]


def test_a_pasted_list_becomes_a_batch_that_says_why_items_failed(node: WebNode) -> None:
    otto = node.signed_in("otto")
    assert "archive (wado)" in (shown := otto.get("/retrievals").text)
    assert "drop" not in shown
    asked = {"csrf": csrf(otto), "source": "archive", "values": LIST, "hours": "22:00-06:00", "per_minute": "5"}
    made = otto.post("/retrievals", data=asked)
    assert made.status_code == 303
    with transaction(node.engine) as tx:
        (batch,) = retrievals.list_batches(tx)
        assert (batch["how"], batch["hours"], batch["per_minute"], batch["actor"]) == (
            "wado", "22:00-06:00", 5.0, "user otto",
        )  # fmt: skip
        first, second = retrievals.list_items(tx, batch["id"])
        retrievals.note_attempt(tx, first)
        retrievals.end_item(tx, first, ItemState.FAILED, retrievals.Came(reason="archive knows <i>no</i> study"))
        retrievals.note_attempt(tx, second)
    page = otto.get(made.headers["location"]).text
    assert "archive knows &lt;i&gt;no&lt;/i&gt; study" in page
    assert "A&lt;b&gt;1" in page
    assert "<b>" not in page.replace("<b>1</b>", "").replace("<b>0</b>", "").replace("<b>AINODE</b>", "")
    assert "under way" in page
    assert 'value="1" max="2"' in otto.get("/retrievals/rows").text
    where = made.headers["location"]
    for change, state in (("pause", "paused"), ("resume", "running"), ("cancel", "canceled")):
        assert otto.post(f"{where}/{change}", data={"csrf": asked["csrf"]}).headers["location"] == where
        assert f">{state}</span>" in otto.get(f"{where}/rows").text
    assert otto.post(f"{where}/resume", data={"csrf": asked["csrf"]}).status_code == 409
    assert otto.post(f"{where}/burn", data={"csrf": asked["csrf"]}).status_code == 404
    assert events(node) == [
        ("retrieval started", "user otto"),
        ("retrieval of an item failed", "node"),
        ("retrieval paused", "user otto"),
        ("retrieval resumed", "user otto"),
        ("retrieval ended", "user otto"),
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"values": "A*"}, "wildcard"),
        ({"values": " \n"}, "name what to retrieve"),
        ({"values": "A1", "source": "drop"}, "cannot be asked"),
        ({"values": "A1", "how": "move"}, "wado"),
        ({"values": "A1", "hours": "10pm"}, "no span of hours"),
        ({"values": "A1", "per_minute": "-1"}, "no number of studies a minute"),
        ({"values": "1.2.x", "kind": "study UID"}, "no UID"),
        ({"values": "A1", "called": "OTHER"}, "no title of ours"),
    ],
)
def test_what_cannot_be_asked_is_told_and_the_list_is_still_there(
    node: WebNode, wrong: dict[str, str], told: str
) -> None:
    otto = node.signed_in("otto")
    answer = otto.post("/retrievals", data={"csrf": csrf(otto), "source": "archive", **wrong})
    assert answer.status_code == 422
    assert told in answer.text
    assert f">{wrong['values']}</textarea>" in answer.text
    assert not events(node)


def test_programs_make_read_and_end_batches_and_viewers_only_read(node: WebNode) -> None:
    vera, otto = node.client(node.token("vera", Right.VIEW)), node.client(node.token("otto", Right.VIEW, Right.OPERATE))
    base = "/api/v1/retrievals"
    asked = {"source": "pacs", "accessions": ["A1", "A2"], "studies": ["1.2.3"], "how": "get"}
    assert vera.post(base, json=asked).status_code == 403
    key = {"Idempotency-Key": "1"}
    started = otto.post(base, json=asked, headers=key)
    assert started.status_code == 202, started.text
    assert started.json() == otto.post(base, json=asked, headers=key).json()
    batch = started.json()["retrieval"]
    (told,) = vera.get(base).json()
    assert (told["id"], told["items"]) == (batch, {"instances": 0, "waiting": 3})
    listed = vera.get(f"{base}/{batch[:8]}").json()["listed"]
    assert [(one["kind"], one["value"]) for one in listed][::2] == [("accession number", "A1"), ("study UID", "1.2.3")]
    moved = otto.post(base, json={"source": "pacs", "accessions": ["A1"]}).json()
    assert moved["cautions"] == ["PACS is not in receive.peers: what it sends us is rejected"]
    assert otto.post(f"{base}/{batch}/pause").json()["state"] == "paused"
    assert vera.post(f"{base}/{batch}/cancel").status_code == 403
    assert otto.post(f"{base}/{batch}/cancel").json()["items"]["canceled"] == 3
    assert otto.post(f"{base}/{batch}/resume").status_code == 409
    refused = otto.post(base, json={"source": "pacs", "accessions": ["A*"]})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert "wildcard" in refused.json()["detail"]
    assert otto.post(base, json={"source": "nowhere", "accessions": ["A1"]}).status_code == 404
    _viewer_sees_no_form(node.signed_in("vera"), batch)


def _viewer_sees_no_form(vera: TestClient, batch: str) -> None:
    assert "<textarea" not in vera.get("/retrievals").text
    assert "/cancel" not in vera.get(f"/retrievals/{batch}").text
    data = {"csrf": csrf(vera), "source": "pacs", "values": "A1"}
    assert vera.post("/retrievals", data=data).status_code == 403


def test_what_ended_long_ago_is_forgotten_and_the_audit_trail_stays(node: WebNode) -> None:
    otto = node.client(node.token("otto", Right.VIEW, Right.OPERATE))
    old, new = (
        otto.post("/api/v1/retrievals", json={"source": "pacs", "accessions": ["A1"]}).json()["retrieval"]
        for _ in range(2)
    )
    otto.post(f"/api/v1/retrievals/{old}/cancel")
    with transaction(node.engine) as tx:
        assert retrievals.forget_batches(tx, utc_now() - timedelta(days=1)) == 0
        assert retrievals.forget_batches(tx, utc_now() + timedelta(days=1)) == 1
        assert [one["id"] for one in retrievals.list_batches(tx)] == [new]
        assert not retrievals.list_items(tx, old)
    assert len(events(node)) == 3
