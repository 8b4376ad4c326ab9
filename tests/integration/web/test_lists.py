"""Lists, searches and replays find the same on SQLite and PostgreSQL, whatever they are filtered by."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from dicom_node.admin.pages import queue
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.db.profiles import write_profile
from dicom_node.domain.finding import Code
from dicom_node.domain.model import MapCard
from dicom_node.domain.people import Right
from dicom_node.domain.profile import EXPLICIT, OFFERS, Profile
from tests.integration.web.node import RULE, WebNode
from tests.integration.web.test_api import walk
from tests.integration.web.test_dicomweb import search
from tests.integration.web.test_pages import text

DENOISED = MapCard(
    "denoised",
    "Denoised CT",
    Code("112031", "DCM", "Attenuation Coefficient"),
    Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
)
TABLES = {"/jobs": t.job, "/series": t.series, "/results": t.result, "/deliveries": t.delivery}


@pytest.fixture
def admin(listed: WebNode) -> TestClient:
    return listed.client(listed.token("ann", Right.VIEW, Right.ADMINISTER))


@pytest.mark.parametrize("path", TABLES)
def test_a_list_gives_every_row_once_newest_first(listed: WebNode, admin: TestClient, path: str) -> None:
    with transaction(listed.engine) as tx:
        expected = tx.scalar(select(func.count()).select_from(TABLES[path]))
    at = "first_received_at" if path == "/series" else "created_at"
    for limit in (1, 3, 500):
        rows = list(walk(admin, path, limit=limit))
        assert len({row["id"] for row in rows}) == len(rows) == expected
        assert [row[at] for row in rows] == sorted((row[at] for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("path", "asked", "holds"),
    [
        ("/jobs", {"state": "failed"}, lambda row: row["state"] == "failed"),
        ("/jobs", {"model": "lung_ct", "state": "completed"}, lambda row: row["state"] == "completed"),
        ("/jobs", {"accession": "A-first"}, lambda row: row["patient_id"] == "P_first"),
        ("/series", {"modality": "MR"}, lambda row: row["accession_number"] == "A-mr"),
        ("/series", {"patient": "P_few"}, lambda row: "slices at least 10: no, 3" in row["no_job_reason"]),
        ("/results", {"kind": "seg"}, lambda row: row["kind"] == "seg"),
        ("/results", {"model": "lung_ct", "kind": "sr"}, lambda row: (row["kind"], row["model"]) == ("sr", "lung_ct")),
        ("/deliveries", {"state": "failed"}, lambda row: "0xC000" in row["last_error"]),
        ("/deliveries", {"destination": "pacs", "state": "delivered"}, lambda row: row["last_status"] == 0),
        ("/audit", {"event": "delivered"}, lambda row: row["delivery_id"] and row["event"] == "delivered"),
        ("/audit", {"actor": "operator ann"}, lambda row: row["actor"] == "operator ann"),
    ],
)
def test_a_filter_gives_what_it_names_and_all_of_it(
    listed: WebNode, admin: TestClient, path: str, asked: dict[str, str], holds: Callable[[Any], bool]
) -> None:
    found = list(walk(admin, path, limit=1, **asked))
    assert found
    assert all(holds(row) for row in found)
    table = TABLES.get(path, t.audit_event).c
    columns = [(name, value) for name, value in asked.items() if name in table]
    if len(columns) == len(asked):
        wanted = [table[name] == value for name, value in columns]
        with transaction(listed.engine) as tx:
            assert len(found) == tx.scalar(select(func.count()).where(*wanted))


@pytest.mark.parametrize("path", ["/jobs", "/series", "/results", "/deliveries", "/audit"])
def test_nothing_is_found_of_what_is_not_there(admin: TestClient, path: str) -> None:
    assert admin.get(f"/api/v1{path}", params={"since": "2100-01-01T00:00:00Z"}).json() == {"items": [], "next": None}


@pytest.mark.parametrize("show", ["", "open", "failed", "completed", "canceled"])
def test_the_queue_goes_on_page_by_page(listed: WebNode, show: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_PAGE", 2)
    vera, seen, link = listed.signed_in("vera"), [], f"/?show={show}"
    for _ in range(10):
        html = vera.get(link).text
        seen += re.findall(r'id="j([-0-9a-f]{36})"', html)
        older = re.search(r'href="([^"]+)" rel="next"', html)
        if older is None:
            break
        link = unescape(older[1])
    states = {"": (), "open": ("scheduled", "in progress")}.get(show, (show,))
    assert sorted(seen) == sorted(job["id"] for job in listed.jobs(states=states))
    assert vera.get("/?after=nonsense").status_code == 400


def test_series_without_a_job_are_listed_with_the_reason(listed: WebNode, monkeypatch: pytest.MonkeyPatch) -> None:
    vera = listed.signed_in("vera")
    assert "2 without a job today" in text(vera.get("/").text)
    monkeypatch.setattr(queue, "_PAGE", 1)
    first = vera.get("/?show=without").text
    assert "A-few" in text(first)
    assert "no rule matched: rule chest_ct did not match: slices at least 10: no, 3" in text(first)
    assert "A-mr" not in text(first), "the one that was closed before"
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    second = vera.get(unescape(older[1])).text
    assert "Modality is CT: no, MR" in text(second)
    assert 'rel="next"' not in second
    assert vera.get("/?show=without&after=nonsense").status_code == 400


def test_the_audit_page_goes_on_where_it_ended(listed: WebNode, admin: TestClient) -> None:
    every = [row["id"] for row in walk(admin, "/audit", limit=500, event="series routed")]
    by_one = [row["id"] for row in walk(admin, "/audit", limit=1, event="series routed")]
    assert by_one == every
    assert len(every) == 6


def test_dicomweb_searches_by_everything_that_it_matches(listed: WebNode, admin: TestClient) -> None:
    def studies(**keys: str) -> set[str]:
        return {ds.AccessionNumber for ds in search(admin, "/studies", **keys)}

    every = studies()
    assert len(every) == 8
    assert studies(ModalitiesInStudy="MR") == {"A-mr"}
    assert studies(ModalitiesInStudy="CT") == every - {"A-mr"}
    assert studies(ModalitiesInStudy="SEG") == {"A-first", "A-second"}
    assert studies(ModalitiesInStudy="SEG", StudyDate="20260101-") == set()
    assert studies(StudyDate="20251231") == {"A-first", "A-second"}
    assert studies(StudyDate="20260101-20260131", ModalitiesInStudy="CT") == every - {"A-mr", "A-first", "A-second"}
    assert studies(PatientID="P_f*") == {"A-first", "A-few"}, "an underscore is no wildcard"
    assert studies(PatientID="P?few", AccessionNumber="*") == {"A-few"}
    for modality in ("", "CT", "SEG"):
        by_one = [
            ds.AccessionNumber
            for offset in range(9)
            for ds in search(admin, "/studies", limit="1", offset=str(offset), ModalitiesInStudy=modality)
        ]
        assert sorted(by_one) == sorted(studies(ModalitiesInStudy=modality))
    (first,) = search(admin, "/studies", AccessionNumber="A-first")
    assert (first.NumberOfStudyRelatedSeries, first.NumberOfStudyRelatedInstances) == (3, 14)
    assert list(first.ModalitiesInStudy) == ["CT", "SEG", "SR"]
    uids = [search(admin, "/series", limit="1", offset=str(n))[0].SeriesInstanceUID for n in range(12)]
    assert len(set(uids)) == 12, "eight that came and four that were made"
    assert search(admin, "/series", offset="12") == []
    assert len(search(admin, "/series", Modality="CT")) == 7
    of_study = search(admin, f"/studies/{first.StudyInstanceUID}/series")
    assert sorted(ds.NumberOfSeriesRelatedInstances for ds in of_study) == [1, 1, 12]
    assert len(search(admin, "/instances", limit="500")) == 7 * 12 + 3 + 4


def test_a_replay_and_a_test_of_the_rules_agree_with_routing(admin: TestClient) -> None:
    asked = {"rule": 'name = "chest_ct"\n' + RULE.replace("10", "2"), "days": 7}
    replay = admin.post("/api/v1/rules/replay", json=asked).json()
    assert (replay["looked_at"], replay["matched"], replay["gained"], replay["new_jobs"]) == (8, 7, 1, 1)
    assert replay["model_s"] == pytest.approx(7 * 1.5)
    (match,) = admin.post("/api/v1/rules/test", json={"series": "A-mr"}).json()["matches"]
    assert [r["held"] for r in match["reasons"]] == [False, True]


def test_pages_that_count_are_answered(listed: WebNode, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = listed.signed_in("ann")
    told = {
        path: text(ann.get(path).text) for path in ("/", "/system", "/models", "/rules", "/destinations", "/people")
    }
    assert "1 running" in told["/"]
    assert "2 deliveries have failed for good" in told["/system"]
    assert "vera" in told["/people"]
    assert "Nodule one by one, from score" in text(ann.get("/models/chest_ct").text)
    monkeypatch.setitem(
        listed.catalog.models,  # shared with the pages
        "chest_ct",
        replace(listed.catalog.models["chest_ct"], segments=(), detections=(), maps=(DENOISED,)),
    )
    assert "Denoised CT Attenuation Coefficient 112031, DCM Hounsfield unit" in text(ann.get("/models/chest_ct").text)
    for found, name in (("A-first", "A-first"), ("P_few", "A-few"), ("ffff", "Nothing is known")):
        assert name in text(ann.get("/find", params={"q": found}, follow_redirects=True).text)
    assert re.search(r'^dicom_node_jobs_open\{.*"in progress".*} 1.0$', ann.get("/metrics").text, re.MULTILINE)


def test_what_a_destination_said_when_it_was_probed_is_shown(either_node: WebNode) -> None:
    node = either_node
    vera = node.signed_in("vera")
    assert "was never probed" in text(vera.get("/destinations").text)
    where = node.catalog.destinations["pacs"].where
    accepted = {offer.sop_class_uid: (EXPLICIT,) for offer in OFFERS[1:]} | {OFFERS[0].sop_class_uid: ()}
    said = Profile(where, utc_now(), accepted, (1.5, 2.5), "it does not take Storage Commitment", "")
    with transaction(node.engine) as tx:
        write_profile(tx, "pacs", said)
    shown = text(vera.get("/destinations").text)
    assert "does not take segmentation (SEG) it gets instead: contours (RT Structure Set) and pictures" in shown
    assert "Explicit VR Little Endian" in shown
    reader = node.client(node.token("vera", Right.VIEW))
    probed = reader.get("/api/v1/destinations/pacs").json()["probed"]
    assert (probed["does_not_take"], probed["verify"]) == (["segmentation (SEG)"], "query")
    assert reader.get("/api/v1/destinations/none").status_code == 404
