"""The rules by the REST API: what they say is what routing said, and nothing comes of the asking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dicom_node.domain.people import Right
from tests.ct import small_ct
from tests.integration.web.node import RULE, WebNode
from tests.integration.web.test_people import events
from tests.integration.web.test_rules import rows

Filled = tuple[WebNode, dict[str, str]]
NAMED = 'name = "chest_ct"\n' + RULE


@pytest.fixture(scope="module")
def reader(filled: Filled) -> TestClient:
    return filled[0].client(filled[0].token("vera", Right.VIEW))


def reasons(match: dict[str, Any]) -> str:
    return "; ".join(f"{r['condition']}: {'yes' if r['held'] else 'no, ' + r['found']}" for r in match["reasons"])


@pytest.mark.parametrize("what", ["completed", "failed", "refused"])
def test_tried_on_a_series_the_rules_say_what_routing_said(filled: Filled, reader: TestClient, what: str) -> None:
    node, made = filled
    (job,) = node.jobs(job=made[what])
    told = [detail["rules"] for _, detail in events(node, "series routed")]
    for name in (job["series_id"], job["series_instance_uid"], job["id"]):
        tested = reader.post("/api/v1/rules/test", json={"series": name}).json()
        (match,) = tested["matches"]
        assert (tested["series_id"], match["rule"], match["matched"]) == (job["series_id"], "chest_ct", True)
        assert [f"rule chest_ct matched: {reasons(match)}"] in told


def test_a_written_rule_is_asked_in_place_of_those_of_the_node(filled: Filled, reader: TestClient) -> None:
    before = rows(filled[0])
    (match,) = reader.post("/api/v1/rules/test", json={"series": "A-few"}).json()["matches"]
    assert (match["matched"], reasons(match)) == (False, "Modality is CT: yes; slices at least 10: no, 3")
    wider = {"series": "A-few", "rule": RULE.replace("10", "3")}
    (match,) = reader.post("/api/v1/rules/test", json=wider).json()["matches"]
    assert (match["rule"], match["matched"]) == ("as written", True)
    assert rows(filled[0]) == before


def test_a_file_is_asked_about_and_not_kept(filled: Filled, reader: TestClient, tmp_path: Path) -> None:
    node, _ = filled
    before = rows(node), sorted(node.spool.root.rglob("*"))
    (path, *_) = small_ct(tmp_path / "ct", slices=1, rows=8, columns=8)
    when = '[when]\nPatientName = "X"\nKVP = { at_least = 100 }\ncalling_ae = "CT7"\nslices = { at_least = 10 }'
    rule = f'model = "lung_ct"\ndestinations = ["pacs"]\n{when}'
    data = {"rule": rule, "calling_ae": "CT7", "slices": "12"}
    answer = reader.post("/api/v1/rules/test/file", data=data, files={"file": ("a.dcm", path.read_bytes())})
    assert answer.json()["series_id"] is None
    (match,) = answer.json()["matches"]
    held = {r["condition"]: (r["held"], r["found"]) for r in match["reasons"]}
    assert held["PatientName is X"] == (False, "value not shown")
    assert held["calling_ae is CT7"] == (True, "CT7")
    assert held["slices at least 10"] == (True, "12")
    assert "SYNTHETIC" not in answer.text
    for junk in (b"no DICOM", b"", path.read_bytes()[:140]):
        answer = reader.post("/api/v1/rules/test/file", files={"file": ("a.dcm", junk)})
        assert answer.status_code in (200, 409)
    assert (rows(node), sorted(node.spool.root.rglob("*"))) == before


def test_a_replay_counts_what_a_change_would_have_matched_and_cost(filled: Filled, reader: TestClient) -> None:
    node, made = filled
    every = len(node.jobs())

    def replay(rule: str) -> dict[str, Any]:
        answer = reader.post("/api/v1/rules/replay", json={"rule": rule, "days": 7})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    same, wider = replay(NAMED), replay(NAMED.replace("10", "2"))
    assert (same["matched"], same["looked_at"], same["gained"], same["lost"]) == (every, every + 1, 0, 0)
    assert (wider["gained"], wider["lost"], wider["new_jobs"]) == (1, 0, 1)
    (first, *_) = wider["series"]
    assert (first["accession_number"], first["matched"], first["matched_before"]) == ("A-few", True, False)
    narrower = replay(NAMED.replace("10", "25"))
    assert (narrower["matched"], narrower["lost"]) == (1, every - 1)
    (job,) = node.jobs(job=made["completed"])
    computed = sum(job["steps_s"][step] for step in ("preprocess", "infer", "postprocess"))
    assert narrower["model_s"] == pytest.approx(computed)
    assert narrower["model_s_per_day"] == pytest.approx(computed / 7)
    assert replay(NAMED.replace("lung_ct", "other"))["model_s"] is None


@pytest.mark.parametrize(
    ("path", "asked", "status", "told"),
    [
        ("replay", {"rule": "model = ", "days": 7}, 422, "not valid TOML"),
        ("replay", {"rule": "", "days": 7}, 422, "needed"),
        ("replay", {"rule": RULE.replace("Modality", "Modallity"), "days": 7}, 422, "did you mean 'Modality'"),
        ("replay", {"rule": RULE, "days": 91}, 422, "not as it should be"),
        ("test", {"series": "nobody"}, 404, "no such series"),
        ("test", {"series": "A-few", "rule": "model = 7"}, 422, "model"),
        ("test", {"series": "A-few", "script": "x"}, 422, "not as it should be"),
    ],
)
def test_what_is_wrong_is_told_as_a_problem(
    reader: TestClient, path: str, asked: dict[str, Any], status: int, told: str
) -> None:
    answer = reader.post(f"/api/v1/rules/{path}", json=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert told in answer.json()["detail"]


def test_a_token_that_may_not_view_asks_nothing(filled: Filled) -> None:
    storing = filled[0].client(filled[0].token("otto", Right.STORE))
    assert storing.post("/api/v1/rules/test", json={"series": "A-few"}).status_code == 403
    assert storing.post("/api/v1/rules/replay", json={"rule": RULE}).status_code == 403


STUDY_RULE = """\
name = "chest_ct"
model = "lung_ct"
destinations = ["pacs"]
[when]
Modality = "CT"
[inputs.whole]
slices = { at_least = 10 }
"""


def test_a_rule_of_several_series_says_which_role_one_would_fill_and_in_how_many_studies_all_are(
    filled: Filled, reader: TestClient
) -> None:
    node, made = filled
    every = len(node.jobs())
    pair = STUDY_RULE + "[inputs.many]\nslices = { at_least = 1000 }\n"
    (job,) = node.jobs(job=made["completed"])
    (match,) = reader.post("/api/v1/rules/test", json={"series": job["id"], "rule": pair}).json()["matches"]
    assert (match["matched"], match["roles"]) == (True, ["whole"])
    assert [(r["role"], r["held"]) for r in match["reasons"]] == [("", True), ("whole", True), ("many", False)]

    alone, both = (
        reader.post("/api/v1/rules/replay", json={"rule": rule, "days": 7}).json() for rule in (STUDY_RULE, pair)
    )
    fit = every - 1  # one of them is refused, and fills nothing
    assert (alone["matched"], alone["studies"], alone["new_jobs"]) == (every, fit, 0)
    assert (both["matched"], both["studies"], both["new_jobs"], both["model_s"]) == (every, 0, 0, 0.0)

    (rule,) = reader.get("/api/v1/rules").json()
    assert (rule["inputs"], rule["wait_s"]) == ([], None)
    assert reader.get(f"/api/v1/jobs/{job['id']}").json()["inputs"] == []
