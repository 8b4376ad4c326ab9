"""Rules without consequences: the reasons are those of routing, and a replay counts what a change would have done."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from dicom_node.admin.paper import span
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from tests.ct import small_ct
from tests.integration.web.node import RULE, WebNode
from tests.integration.web.test_pages import text
from tests.integration.web.test_people import csrf, events

Filled = tuple[WebNode, dict[str, str]]


def rows(node: WebNode) -> list[int]:
    """How many rows there are of what a rule could make."""
    with transaction(node.engine) as tx:
        return [tx.scalar(select(func.count()).select_from(x)) or 0 for x in (t.series, t.instance, t.job, t.result)]


@pytest.mark.parametrize("what", ["completed", "failed", "refused"])
def test_tried_on_a_series_the_rules_say_what_routing_said(filled: Filled, what: str) -> None:
    node, made = filled
    (job,) = node.jobs(job=made[what])
    vera = node.signed_in("vera")
    told = [d["rules"] for _, d in events(node, "series routed")]
    shown = text(vera.get(f"/rules?series={job['series_id']}").text)
    assert "matches chest_ct" in shown
    assert "yes Modality is CT" in shown
    assert ["rule chest_ct matched: Modality is CT: yes; slices at least 10: yes"] in told


def test_a_series_without_a_job_shows_which_condition_failed(filled: Filled) -> None:
    node, _ = filled
    vera = node.signed_in("vera")
    before = rows(node)
    shown = text(vera.post("/rules/try", data={"csrf": csrf(vera), "series": "A-few"}).text)
    assert "does not match chest_ct" in shown
    assert "no slices at least 10 found: 3" in shown
    written = RULE.replace("10", "3")
    shown = text(vera.post("/rules/try", data={"csrf": csrf(vera), "series": "A-few", "text": written}).text)
    assert "matches as written" in shown
    assert rows(node) == before


def test_a_dropped_file_is_asked_about_and_not_kept(filled: Filled, tmp_path: Path) -> None:
    node, _ = filled
    vera = node.signed_in("vera")
    before = rows(node), sorted(node.spool.root.rglob("*"))
    (path, *_) = small_ct(tmp_path / "ct", slices=1, rows=8, columns=8)
    when = '[when]\nPatientName = "X"\nKVP = { at_least = 100 }\ncalling_ae = "CT7"'
    rule = f'model = "lung_ct"\ndestinations = ["pacs"]\n{when}'
    data = {"csrf": csrf(vera), "text": rule, "calling": "CT7"}
    answer = vera.post("/rules/try", data=data, files={"file": ("a.dcm", path.read_bytes())})
    shown = text(answer.text)
    assert "yes KVP at least 100" in shown
    assert "yes calling_ae is CT7" in shown
    assert "no PatientName is X found: value not shown" in shown
    assert "SYNTHETIC" not in shown
    for junk in (b"no DICOM", b"", path.read_bytes()[:200]):
        answer = vera.post("/rules/try", data={**data, "series": "none"}, files={"file": ("a.dcm", junk)})
        assert answer.status_code in (200, 400), junk
    assert (rows(node), sorted(node.spool.root.rglob("*"))) == before


def test_a_replay_counts_what_the_changed_rule_would_have_matched_and_cost(filled: Filled) -> None:
    node, made = filled
    vera = node.signed_in("vera")
    assert "slices = { at_least = 10 }" in vera.get("/rules?edit=chest_ct").text

    def replay(changed: str) -> str:
        return text(vera.post("/rules/replay", data={"csrf": csrf(vera), "text": changed, "days": "7"}).text)

    every = node.jobs()
    same = replay('name = "chest_ct"\n' + RULE)
    assert f"{len(every)} of {len(every) + 1} series match. As the rule is now." in same
    wider = replay('name = "chest_ct"\n' + RULE.replace("10", "2"))
    assert f"{len(every) + 1} of {len(every) + 1} series match. Against the rule as it is, 1 more and 0 fewer." in wider
    assert "1 of them has no job of this model yet." in wider
    narrower = replay('name = "chest_ct"\n' + RULE.replace("10", "25"))
    assert (
        f"1 of {len(every) + 1} series match. Against the rule as it is, 0 more and {len(every) - 1} fewer." in narrower
    )
    (job,) = node.jobs(job=made["completed"])
    computed = sum(job["steps_s"][step] for step in ("preprocess", "infer", "postprocess"))
    assert f"lung_ct would have computed {span(computed)} in all" in narrower


def test_a_rule_of_several_series_is_shown_with_its_roles(filled: Filled) -> None:
    vera = filled[0].signed_in("vera")
    rule = f"{RULE}[inputs.whole]\nslices = {{ at_least = 10 }}\n[inputs.many]\nslices = {{ at_least = 1000 }}\n"
    asked = {"csrf": csrf(vera), "text": rule, "series": filled[1]["completed"], "days": "7"}
    shown = text(vera.post("/rules/try", data=asked).text)
    assert "matches as written as whole" in shown
    assert "no many: slices at least 1000" in shown
    assert "and fill every role in 0 studies." in text(vera.post("/rules/replay", data=asked).text)


def test_a_rule_that_is_wrong_is_told_as_check_tells_it(filled: Filled) -> None:
    vera = filled[0].signed_in("vera")
    for written, told in (
        ("", "needed"),
        ("model = ", "not valid TOML"),
        (RULE.replace("Modality", "Modallity"), "did you mean 'Modality'"),
        (RULE + "\n[a.b]\nc = 1", "there is no such key"),
        ("[" * 3000, "not valid TOML"),
    ):
        answer = vera.post("/rules/replay", data={"csrf": csrf(vera), "text": written})
        assert answer.status_code == 400
        assert told in text(answer.text)
