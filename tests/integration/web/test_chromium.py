"""The pages as a person has them: in Chromium, from a real server, with the keyboard. Makes the pictures of docs/, too.

PICTURES=docs/images pytest tests/integration/web/test_chromium.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.web.node import PASSWORD, PICTURES, WebNode, serving
from tests.node import wait_for
from tests.peers.missing import need

Filled = tuple[WebNode, dict[str, str]]


@pytest.fixture(scope="module")
def address(filled: Filled) -> Iterator[str]:
    """Where the filled node is served, by the server that `dicom-node web` runs."""
    node, _ = filled
    with serving(node) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in which ann is signed in; no script error and no breach of its policy may happen in it."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 860}, color_scheme=request.param, base_url=address, locale="en-GB"
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto("/")
    page.fill("[name=name]", "ann")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/")
    yield page
    assert wrong == []
    context.close()


def picture(page: Page, name: str, request: pytest.FixtureRequest, *, full: bool = False) -> None:
    """Keep what is seen, where pictures are wanted."""
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"web-{name}-{request.node.callspec.params['page']}.png", full_page=full)


def until(page: Page, met: str, argument: object) -> None:
    """Wait until a function of the page says yes: polled from here, since the page's own policy forbids eval."""
    wait_for(lambda: page.evaluate(met, argument), 60, lambda: f"{met} of {argument}", every_s=0.05)


def test_from_the_accession_number_to_the_result_with_the_keyboard(
    page: Page, filled: Filled, request: pytest.FixtureRequest
) -> None:
    node, made = filled
    (job,) = node.jobs(job=made["completed"])
    picture(page, "queue", request)
    page.keyboard.press("/")
    page.keyboard.type(job["accession_number"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/series/*")
    assert "Result delivered to pacs" in page.inner_text(".answer")
    picture(page, "story", request)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    position = page.locator("[data-position]")
    first, slices = map(int, position.inner_text().split(" / "))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    shown = "told => document.querySelector('[data-position]').textContent === told"
    until(page, shown, f"{first + 1} / {slices}")
    until(page, "n => document.querySelector('img.slice').src.includes('/slices/' + n + '.png')", first)
    assert page.evaluate("document.querySelector('img.slice').naturalWidth") == 512
    page.keyboard.press("4")
    until(page, "name => document.querySelector('img.slice').src.endsWith('window=' + name)", "bone")
    page.keyboard.press("o")
    assert page.locator("img.overlay").evaluate("image => getComputedStyle(image).visibility") == "hidden"
    page.keyboard.press("o")
    page.keyboard.press("1")
    until(page, "name => document.querySelector('img.slice').src.endsWith('window=' + name)", "lung")
    picture(page, "result", request)
    page.get_by_role("button", name="show").first.click()
    assert page.locator(".stack").evaluate("stack => stack === document.activeElement")


def test_the_queue_refreshes_itself_and_keeps_its_place(page: Page, filled: Filled) -> None:
    node, made = filled
    page.keyboard.press("j")
    here = page.locator("tr.here").get_attribute("id")
    with page.expect_response(lambda answer: answer.url.endswith("/queue?"), timeout=60_000) as refreshed:
        pass
    assert refreshed.value.status == 200
    until(page, "id => document.querySelector('tr.here')?.id === id", here)
    assert page.locator(f"#j{made['running']} progress").count() == 1
    assert node.jobs(job=made["running"])


def test_rules_are_tried_and_replayed(page: Page, filled: Filled, request: pytest.FixtureRequest) -> None:
    page.goto("/rules?edit=chest_ct")
    text = page.input_value("textarea").replace("at_least = 10", "at_least = 3")
    page.fill("textarea", 'name = "chest_ct"\n' + text)
    page.get_by_role("button", name="Replay").click()
    assert "1 more" in page.inner_text("#replayed")
    picture(page, "rules", request)
    page.fill("[name=series]", "A-few")
    page.get_by_role("button", name="Try", exact=True).click()
    assert "does not match" in page.inner_text("#tried")


@pytest.mark.parametrize("width", [900, 390])
def test_every_page_fits_half_a_screen_and_a_phone(
    page: Page, filled: Filled, width: int, request: pytest.FixtureRequest
) -> None:
    _, made = filled
    page.set_viewport_size({"width": width, "height": 800})
    for path in (
        f"/jobs/{made['completed']}",
        "/?show=without",
        "/models",
        "/rules",
        "/destinations",
        "/system",
        "/people",
        "/audit",
        "/",
    ):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is {wide} px wider than the screen"
    if width < 500:
        picture(page, "phone", request)


def test_an_identifier_is_copied_whole(page: Page, filled: Filled) -> None:
    _, made = filled
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"/jobs/{made['completed']}")
    page.locator(f"[data-copy='{made['completed']}']").click()
    page.wait_for_selector(".copy.done")
    assert page.evaluate("navigator.clipboard.readText()") == made["completed"]
