"""The pages, on a node that a real model ran on: where is my result, and what may be done about it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom._dicom_dict import DicomDictionary
from sqlalchemy import select, update

from dicom_node import operate
from dicom_node.admin.site import build_site
from dicom_node.cli import cli
from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.browse import results_of, slices_of
from dicom_node.db.engine import reading, transaction
from dicom_node.db.retention import delete_results
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import Sent
from dicom_node.domain.people import Right
from dicom_node.errors import DeliveryError
from dicom_node.explain import explain
from dicom_node.picture import WINDOWS, read_overlay
from dicom_node.volume import load_volume
from tests.ct import small_ct
from tests.integration.web.node import WebNode
from tests.integration.web.test_people import csrf, events

Filled = tuple[WebNode, dict[str, str]]
INERT = "<script>alert(1)</script>"
# Every attribute at the top level that holds text, but for what says how the others are encoded.
TEXTS = sorted(
    keyword
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items()
    if vr in ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT") and not retired and tag >> 16 > 2
    if keyword != "SpecificCharacterSet"
)
PAYLOADS = (INERT, '"><img src=x onerror=alert(1)>', "'-alert(1)-'", "{{7*7}}", "javascript:alert(1)")


def tags(html: str) -> list[tuple[str, dict[str, str]]]:
    """Every tag with its attributes, as a browser reads them."""
    found: list[tuple[str, dict[str, str]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, {name: value or "" for name, value in attrs}))

    Reader().feed(html)
    return found


def text(html: str) -> str:
    """What a person reads of a page."""
    main = html[max(0, html.find("<main")) :]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", main)))


def test_the_queue_shows_what_runs_first_and_how_far_it_is(filled: Filled) -> None:
    node, made = filled
    browser = node.signed_in("vera")
    html = browser.get("/").text
    places = [html.index(f'id="j{made[what]}"') for what in ("running", "scheduled", "canceled", "failed", "completed")]
    assert places == sorted(places)
    assert "1 running 1 waiting" in text(html)
    assert "2 failed today" in text(html)
    assert re.search(r'<progress value="0\.\d\d" max="1"', html), "the model has a history of one run"
    failed = text(browser.get("/", params={"show": "failed"}).text)
    assert "ran out of memory" in failed
    assert "A-running" not in failed
    rows = browser.get("/queue", headers={"x-background": "1"}).text
    assert "<html" not in rows
    assert f'id="j{made["running"]}"' in rows


@pytest.mark.parametrize("of", ["accession", "patient", "job", "study", "series", "seg"])
def test_whatever_is_at_hand_leads_to_the_story_that_explain_tells(filled: Filled, of: str) -> None:
    node, made = filled
    (job,) = node.jobs(job=made["completed"])
    at_hand = {
        "accession": job["accession_number"],
        "patient": job["patient_id"],
        "job": job["id"][:8],
        "study": job["study_instance_uid"],
        "series": job["series_instance_uid"],
        "seg": job["results"][0]["sop_instance_uid"],
    }
    found = node.signed_in("vera").get("/find", params={"q": f" {at_hand[of]} "}, follow_redirects=True)
    assert str(found.url).endswith(f"/series/{job['series_id']}")
    with transaction(node.engine) as tx:
        (story,) = explain(tx, at_hand[of])
    shown = text(found.text)
    for told in [*(line.text for line in story.lines), story.answer]:
        for part in told.replace("`", " ").splitlines():
            assert re.sub(r"\s+", " ", part).strip() in shown


def test_what_is_not_there_is_said_kindly(filled: Filled) -> None:
    browser = filled[0].signed_in("vera")
    missing = browser.get("/find", params={"q": INERT})
    assert "Nothing found for" in missing.text
    assert "Nothing is known of" in missing.text
    assert INERT not in missing.text
    for path in ("/jobs/ffffffff", "/series/1", "/studies/1.2", "/models/none", "/nowhere"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert "To the queue" in answer.text
    assert "There is no such page" in browser.get("/nowhere").text


def test_a_result_page_shows_findings_deliveries_times_and_report(filled: Filled) -> None:
    node, made = filled
    html = node.signed_in("vera").get(f"/jobs/{made['completed'][:8]}").text
    shown = text(html)
    (job,) = node.jobs(job=made["completed"])
    for segment in job["results"][0]["summary"]["segments"]:
        assert f"{segment['label']} show {segment['volume_ml']:,.1f} ml" in shown
    assert shown.count("pacs delivered") == 2
    assert "Imaging Measurement Report complete, preliminary, unverified" in shown
    for step in job["steps_s"]:
        assert step in shown
    assert "Run again" not in shown, "vera only looks"
    assert f"{len(job['results'])}" in "2"


def test_a_result_page_leads_to_the_slice_of_a_point(filled: Filled) -> None:
    node, made = filled
    of_job = (t.result.c.job_id == made["completed"], t.result.c.kind == "seg")
    with transaction(node.engine) as tx:
        third = slices_of(tx, made["completed"])[2].sop_instance_uid
        before = tx.scalars(select(t.result.c.summary).where(*of_job)).one()
        point = {"label": "Apex", "image_uid": third, "place_mm": [1, 2, 3], "where": "L 1.0 P 2.0 H 3.0 mm"}
        tx.execute(update(t.result).where(*of_job).values(summary={**before, "points": [point]}))
    try:
        html = node.signed_in("vera").get(f"/jobs/{made['completed']}").text
    finally:
        with transaction(node.engine) as tx:
            tx.execute(update(t.result).where(*of_job).values(summary=before))

    assert "Apex show L 1.0 P 2.0 H 3.0 mm" in text(html)
    assert 'data-go="2"' in html[html.index("Apex") : html.index("L 1.0 P")]


def test_a_failed_job_says_why_and_offers_to_run_again(filled: Filled) -> None:
    node, made = filled
    otto = node.signed_in("otto")
    shown = text(otto.get(f"/jobs/{made['failed']}").text)
    assert "No result of lung_ct: The model lung_ct ran out of memory" in shown
    assert "Run again" in shown
    refused = text(otto.get(f"/jobs/{made['refused']}").text)
    assert "A gap: 5 mm between the slices" in refused
    assert "Cancel" in text(otto.get(f"/jobs/{made['running']}").text)


def test_the_pictures_are_the_slices_and_the_segments_where_the_model_marked_them(filled: Filled) -> None:
    node, made = filled
    browser = node.signed_in("vera")
    with reading(node.engine) as tx:
        slices = slices_of(tx, made["completed"])
        seg = results_of(tx, made["completed"])["seg"]
    number = 15
    shown = Image.open(BytesIO(browser.get(f"/jobs/{made['completed']}/slices/{number}.png?window=lung").content))
    values = load_volume(node.spool, slices).array[number]
    centre, width = WINDOWS["lung"]
    grey = np.clip((values - (centre - width / 2)) * 255 / width, 0, 255)
    assert np.abs(np.asarray(shown, float) - grey).max() <= 1

    drawn = np.asarray(Image.open(BytesIO(browser.get(f"/jobs/{made['completed']}/overlay/{number}.png").content)))
    ds = dcmread(node.spool.path(seg.path))
    frames, marked = ds.pixel_array, np.zeros(values.shape, bool)
    for index, item in enumerate(ds.PerFrameFunctionalGroupsSequence):
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        if source == slices[number].sop_instance_uid:
            marked |= frames[index] != 0
    assert marked.any()
    assert np.array_equal(drawn[..., 3] > 0, marked)
    left, right = read_overlay(node.spool.path(seg.path)).segments
    card = {s.label: s.color_rgb for s in node.catalog.models["lung_ct"].segments}
    for segment in (left, right):
        assert np.abs(np.subtract(segment.color_rgb, card[segment.label])).max() <= 2, "the colour goes through CIELab"
    assert browser.get(f"/jobs/{made['completed']}/slices/30.png").status_code == 404
    assert browser.get(f"/jobs/{made['failed']}/overlay/0.png").status_code == 404
    file = browser.get(f"/jobs/{made['completed']}/seg.dcm")
    assert file.content == node.spool.path(seg.path).read_bytes()
    assert "attachment" in file.headers["content-disposition"]


def test_each_look_at_a_patient_is_written_down_once_and_no_name_with_it(filled: Filled) -> None:
    node, made = filled
    browser = node.signed_in("vera")
    before = len(events(node, "patient data viewed")), len(events(node, "patient data given out"))
    for path in ("/", f"/jobs/{made['running']}", "/find?q=A-few", "/find?q=nothing"):
        browser.get(path, follow_redirects=True)
    for number in (0, 1, 2, 0):
        assert browser.get(f"/jobs/{made['running']}/slices/{number}.png").status_code == 200
    viewed, given = (
        events(node, "patient data viewed")[before[0] :],
        events(node, "patient data given out")[before[1] :],
    )
    assert [(actor, detail["page"]) for actor, detail in viewed] == [
        ("user vera", page) for page in ("queue", "job", "series", "search")
    ]
    assert len(given) == 1, "a stack of images is one look"
    assert "SYNTHETIC" not in str(viewed + given)
    assert "patient data viewed" not in browser.get("/find?q=A-running", follow_redirects=True).text


def test_buttons_retry_cancel_resend_and_pause_as_the_commands_do(node: WebNode, tmp_path: Path) -> None:
    node.breathe()
    node.receive(small_ct(tmp_path / "ct", rows=16, columns=16))
    otto = node.signed_in("otto")
    data = {"csrf": csrf(otto)}
    (job,) = node.jobs()
    assert otto.post(f"/jobs/{job['id']}/retry", data=data).status_code == 409, "it has not ended"
    canceled = otto.post(f"/jobs/{job['id']}/cancel", data=data)
    assert canceled.headers["location"] == f"/jobs/{job['id']}?done=canceled"
    with transaction(node.engine) as tx:
        (story,) = explain(tx, job["id"])
    assert re.search(r"the job was canceled at .* by user otto; do `dicom-node retry", story.answer)
    again = otto.post(f"/jobs/{job['id']}/retry", data=data)
    newest = node.jobs()[0]
    assert again.headers["location"] == f"/jobs/{newest['id']}?done=scheduled"
    assert (newest["state"], newest["run_no"]) == ("scheduled", 2)
    assert otto.post(f"/jobs/{job['id']}/resend", data=data).status_code == 404, "nothing was ever made"
    assert otto.post(f"/jobs/{job['id']}/rerun", data={**data, "model": "none"}).status_code == 404

    assert otto.post("/queues/jobs/pause", data={**data, "reason": INERT}).status_code == 303
    with transaction(node.engine) as tx:
        (story,) = explain(tx, newest["id"])
    assert "its queue is paused since" in story.answer
    assert INERT not in otto.get("/").text
    assert "dicom-node resume jobs" in text(otto.get(f"/jobs/{newest['id']}").text)
    assert otto.post("/queues/jobs/pause", data=data).status_code == 409
    assert otto.post("/queues/elsewhere/pause", data=data).status_code == 404
    assert otto.post("/queues/jobs/resume", data=data).status_code == 303
    assert {actor for actor, _ in events(node, "operator asked for a retry")} == {"user otto"}


def test_the_first_page_says_what_somebody_should_look_at(node: WebNode, tmp_path: Path) -> None:
    node.breathe()
    node.receive(small_ct(tmp_path / "ct", rows=16, columns=16))
    (job,) = node.jobs()
    vera = node.signed_in("vera")
    assert "not delivered yet" not in vera.get("/").text
    node.complete(job["id"])
    down = "no connection to pacs (PACS at 127.0.0.1:9): refused or unreachable"
    node.send(job["id"], DeliveryError(down, retry=True))
    with transaction(node.engine) as tx:
        peer = {"from": "CT9", "to": "AINODE", "address": "10.0.0.9", "reason": "calling AE title CT9 is not known"}
        for _ in range(2):
            record(tx, AuditEvent(Event.ASSOCIATION_REJECTED, detail=peer))

    queue, system = text(vera.get("/").text), text(vera.get("/system").text)

    for page in (queue, system):
        assert f"2 objects for pacs are not delivered yet: {down}; next try at " in page
    assert queue.count(down) == 2, "above, and at its job"
    assert down in text(vera.get("/destinations").text)
    assert "Cancel deliveries" in node.signed_in("otto").get(f"/jobs/{job['id']}").text
    assert "CT9 AINODE 10.0.0.9 calling AE title CT9 is not known 2 " in system
    done = CliRunner().invoke(cli, ["jobs", "--settings", str(node.settings.file)], env={"COLUMNS": "400"})
    assert down in done.output


def test_the_first_page_says_that_the_disk_fills(node: WebNode) -> None:
    node.breathe()
    more_than_any_disk_mib = 2**40
    assert "0xA700" not in node.signed_in("vera").get("/").text
    retain = node.settings.retain.model_copy(update={"free_mib": more_than_any_disk_mib})
    node.site = build_site(node.desk(node.settings.model_copy(update={"retain": retain})))
    for path in ("/", "/system"):
        page = text(node.signed_in("vera").get(path).text)
        assert f"below retain.free_mib = {more_than_any_disk_mib}: the oldest images and results go" in page
    node.spool.reserve_mib = more_than_any_disk_mib
    assert "images are refused with 0xA700; make room" in text(node.signed_in("vera").get("/").text)


def test_what_retention_has_deleted_is_not_offered_any_more(node: WebNode, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "ct", rows=16, columns=16))
    (job,) = node.jobs()
    node.complete(job["id"])
    node.send(job["id"], Sent(0), Sent(0))
    vera = node.signed_in("vera")
    link = f"/jobs/{job['id']}/seg.dcm"
    assert link in vera.get(f"/jobs/{job['id']}").text

    with transaction(node.engine) as tx:
        assert delete_results(tx, job["id"], None, "it was time")
    node.spool.delete_folder(f"results/{job['id']}")

    page = vera.get(f"/jobs/{job['id']}").text
    assert (link in page, page.count('<span class="dim">deleted ')) == (False, 2)
    assert vera.get(link).status_code == 410
    (told,) = node.client(node.token("vera", Right.VIEW)).get(f"/api/v1/jobs/{job['id']}").json()["results"][:1]
    assert told["deleted_at"]


def test_another_model_runs_beside_the_first_and_takes_nothing_back(node: WebNode, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "ct", rows=16, columns=16))
    (job,) = node.jobs()
    cards = {**node.catalog.models, "other": replace(node.catalog.models["lung_ct"], name="other")}
    looked = operate.look(partial(reading, node.engine), job["id"], node.spool)
    with transaction(node.engine) as tx:
        catalog = replace(node.catalog, models=cards)
        new = operate.rerun(tx, job["id"], "other", looked, catalog, 3, node.enqueuer, actor="user otto")
    assert {(j["model"], j["state"]) for j in node.jobs()} == {("lung_ct", "scheduled"), ("other", "scheduled")}
    with transaction(node.engine) as tx:
        row = tx.execute(select(t.job).where(t.job.c.id == new)).one()
    assert (row.supersedes, row.destinations, len(row.slices)) == (None, ["pacs"], 20)


def test_an_echo_is_asked_kept_and_shown(node: WebNode) -> None:
    otto = node.signed_in("otto")
    assert "never asked" in text(otto.get("/destinations").text)
    assert otto.post("/destinations/pacs/echo", data={"csrf": csrf(otto)}).status_code == 303
    assert "no answer" in text(otto.get("/destinations").text), "nothing listens on port 9"
    health = text(otto.get("/system").text)
    assert "The destination pacs did not answer when it was last asked" in health
    assert "Last echo pacs no answer" in health
    assert otto.post("/destinations/none/echo", data={"csrf": csrf(otto)}).status_code == 404
    ((actor, detail),) = events(node, "destination asked for an echo")
    assert (actor, detail["destination"]) == ("user otto", "pacs")


@pytest.mark.filterwarnings("ignore:.*for VR")
def test_script_in_every_text_attribute_stays_inert(node: WebNode, tmp_path: Path) -> None:
    """Stored: by a scanner, in what is shown of an image. Reflected: in the query."""

    def hostile(number: int, ds: Dataset) -> Dataset:
        for n, keyword in enumerate(TEXTS):
            setattr(ds, keyword, PAYLOADS[n % len(PAYLOADS)][:64])
        ds.PatientName, ds.SeriesDescription, ds.AccessionNumber = INERT, "{{7*7}}", PAYLOADS[1][:16]
        ds.Modality = "CT"
        return ds

    assert len(TEXTS) > 1000
    node.receive(small_ct(tmp_path / "ct", slices=10, rows=16, columns=16, change=hostile), calling="<b>CT</b>")
    (job,) = node.jobs()
    node.fail(job["id"], INERT)
    ann = node.signed_in("ann")
    uid = job["study_instance_uid"]
    pages = [
        *("/", "/queue", "/audit", "/destinations", "/system", "/people", "/account", "/rules", "/models"),
        *(f"/jobs/{job['id']}", f"/series/{job['series_id']}", f"/studies/{uid}"),
        *(f"/{page}={PAYLOADS[1]}" for page in ("find?q", "?show", "?model", "audit?actor", f"jobs/{job['id']}?done")),
        f"/jobs/{PAYLOADS[1]}",
        f"/login?next={PAYLOADS[4]}",
    ]
    for path in pages:
        html = ann.get(path, follow_redirects=True).text
        assert not any(payload in html for payload in PAYLOADS[:2]), path
        for tag, attributes in tags(html):
            assert tag not in ("iframe", "object", "embed", "base", "style"), path
            assert not [name for name in attributes if name.startswith("on") or name == "style"], path
            assert tag != "script" or attributes["src"].startswith("/static/"), path
            links = [attributes.get(name, "") for name in ("href", "src", "action", "data-live", "data-href")]
            assert all(link.startswith(("/", "#", "?")) for link in links if link), (path, links)
    shown = text(ann.get(f"/jobs/{job['id']}").text)
    assert INERT in shown, "it is shown, as text"
    assert "{{7*7}}" in text(ann.get(f"/studies/{uid}").text), "a template is no calculator"
