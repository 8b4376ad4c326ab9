"""From "study X has no AI result" to the reason and the fix: one search, at most two more clicks; or one command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, sync_playwright
from pydicom import Dataset
from sqlalchemy import select

from dicom_node import operate
from dicom_node.catalog import load_catalog
from dicom_node.cli import cli
from dicom_node.db import jobs
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.domain.job import Failure
from dicom_node.errors import DeliveryError
from tests.ct import small_ct
from tests.integration.web.node import PASSWORD, RULE, WebNode, serving
from tests.peers.missing import need

NO_PACS = DeliveryError("no connection to pacs (127.0.0.1 port 9); is it running?", retry=False)
# cause -> its reason, what to do, and the button that does it
CAUSES = {
    "norule": ("Modality is CT: no, MR", "do `dicom-node route A-norule`", "Ask the rules again"),
    "gap": ("A gap: 5 mm between the slices", "send the series again as a whole", ""),
    "unfit": ("slice spacing 12 mm, made for up to 10 mm", "a retry would end alike", ""),
    "broken": ("ran out of memory", "do `dicom-node retry", "Run again"),
    "nopacs": ("no connection to pacs", "do `dicom-node resend", "Send again"),
    "paused": ("its queue is paused since", "do `dicom-node resume jobs`", "Resume jobs"),
}


@pytest.fixture
def troubled(node: WebNode, tmp_path: Path, chest_part: list[Path]) -> WebNode:
    """A node on which each of the causes has happened to a study."""
    node.breathe()

    def come(name: str, change: Callable[[int, Dataset], Dataset | None], step_mm: float = 2.5) -> str:
        def told(number: int, ds: Dataset) -> Dataset | None:
            ds.AccessionNumber = f"A-{name}"
            return change(number, ds)

        spacing = (step_mm, 1.5, 1.5)
        node.receive(small_ct(tmp_path / name, rows=32, columns=32, spacing_mm=spacing, change=told))
        return next((job["id"] for job in node.jobs(accession=f"A-{name}")), "")

    def of_mr(number: int, ds: Dataset) -> Dataset:
        ds.Modality = "MR"
        return ds

    come("norule", of_mr)
    come("gap", lambda number, ds: None if number == 9 else ds)
    node.fail(come("broken", lambda number, ds: ds), "The model lung_ct ran out of memory while it ran.")
    unfit = come("unfit", lambda number, ds: ds, step_mm=12.0)
    node.work(unfit)
    made = come("nopacs", lambda number, ds: ds, step_mm=2.4)
    _made_a_result(node, made)
    node.send(made, NO_PACS, NO_PACS)
    come("paused", lambda number, ds: ds)
    with transaction(node.engine) as tx:
        operate.pause(tx, "jobs", node.catalog, reason="GPU driver", actor="operator ann")
    return node


def _made_a_result(node: WebNode, job_id: str) -> None:
    node.work(job_id)
    (job,) = node.jobs(job=job_id)
    if not job["deliveries"]:  # the model saw no lung in noise: what is sent is the report of that
        with transaction(node.engine) as tx:
            claimed = jobs.claim_job(tx, job_id, "host/work-0/1", {"lung_ct": "d"}, node.enqueuer)
            assert claimed is not None
            jobs.finish_failed(tx, claimed, "no lung", Failure.FAILED, node.enqueuer)


def test_every_cause_is_told_with_what_to_do_and_the_button_that_does_it(troubled: WebNode) -> None:
    node = troubled
    for name, (why, todo, _) in CAUSES.items():
        done = CliRunner().invoke(cli, ["explain", f"A-{name}", "--settings", str(node.settings.file)])
        last = done.output.strip().splitlines()[-1]
        assert why in last, name
        assert todo in last, name

    with serving(node) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
        page = browser.new_page(base_url=address)
        page.goto("/")
        page.fill("[name=name]", "otto")
        page.fill("[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
        (node.settings.rules / "chest_ct.toml").write_text(RULE.replace('"CT"', '["CT", "MR"]'))
        for name, (why, todo, button) in CAUSES.items():
            page.goto("/")
            _first_look(page, f"A-{name}", why, todo)
            if button:
                _second_and_third(page, button)
        browser.close()
    node.catalog = load_catalog(node.settings)  # as after the restart that the answer asks for
    node.sweep()
    assert [job["state"] for job in node.jobs(accession="A-norule")] == ["scheduled"]
    assert [job["state"] for job in node.jobs(accession="A-broken")] == ["scheduled", "failed"]
    (made,) = node.jobs(accession="A-nopacs")
    assert {d["state"] for d in made["deliveries"]} == {"waiting"}
    with transaction(node.engine) as tx:
        told = set(tx.scalars(select(t.audit_event.c.event).where(t.audit_event.c.actor == "user otto")))
    asked = {"operator asked the rules again", "operator asked for a retry", "operator asked for a resend"}
    assert told >= {*asked, "queue resumed"}


def _first_look(page: Page, accession: str, why: str, todo: str) -> None:
    """The search: reason and remedy stand in the first lines of what it finds."""
    page.keyboard.press("/")
    page.keyboard.type(accession)
    page.keyboard.press("Enter")
    page.wait_for_url("**/series/*")
    told = page.inner_text(".answer")
    assert why in told
    assert todo.replace("`", "") in told


def _second_and_third(page: Page, button: str) -> None:
    """On a series without a job the button is there; else its job is opened, and there it is."""
    if page.get_by_role("button", name=button).count() == 0:
        page.locator("main table.rows a").first.click()
        page.wait_for_url("**/jobs/*")
    page.get_by_role("button", name=button).first.click()
    page.wait_for_load_state()
    assert page.locator("h1").count() == 1


def test_a_series_that_has_a_job_is_not_asked_about_again(node: WebNode, chest_part: list[Path]) -> None:
    node.receive(chest_part)
    (job,) = node.jobs()
    for text, status in ((job["study_instance_uid"], 1), ("nothing", 1)):
        done = CliRunner().invoke(cli, ["route", text, "--settings", str(node.settings.file)])
        assert done.exit_code == status
    assert "has a job already" in CliRunner().invoke(
        cli, ["route", job["study_instance_uid"], "--settings", str(node.settings.file)]
    ).output  # fmt: skip
    assert node.signed_in("vera").post(f"/series/{job['series_id']}/route").status_code == 403
