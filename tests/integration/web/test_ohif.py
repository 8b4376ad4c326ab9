"""The OHIF viewer: fetched, proven and unpacked by a command, served behind the sign-in, and open on source and result.

OHIF_PACKAGE=ohif-app-3.12.10.tgz pytest tests/integration/web/test_ohif.py        with the real one, in Chromium
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import sync_playwright

from dicom_node import viewer
from dicom_node.cli import cli
from dicom_node.domain.people import Right
from dicom_node.viewer import Release
from tests.integration.web.node import PASSWORD, WebNode, serving
from tests.peers.missing import need

REAL = os.environ.get("OHIF_PACKAGE", "")
PAGE = """<html><link rel="manifest" href="/manifest.json"/><script>window.PUBLIC_URL = '/';</script>
<script type="module" src="/init-service-worker.js"></script><script src="/app.js"></script></html>"""
FILES = {
    "package/dist/index.html": PAGE,
    "package/dist/app.js": 'r.p="/";x.p = "/";y.p="//host/"',
    "package/dist/app.css": "a{src:url(/f.woff2)} b{src:url(data:1)}",
    "package/dist/ort/model.js": "left out",
    "package/README.md": "left out",
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """A package of a few files, pinned as the real one is, in a folder that looks like a registry."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    integrity = base64.b64encode(hashlib.sha512(out.getvalue()).digest()).decode()
    made = Release("@ohif/app", "1.2.3", integrity)
    place = tmp_path / "registry" / made.path
    place.parent.mkdir(parents=True)
    place.write_bytes(out.getvalue())
    monkeypatch.setattr(viewer, "OHIF", made)
    for function in (viewer.installed, viewer.download, viewer.install):
        monkeypatch.setattr(function, "__defaults__", (made,))
    return made


@pytest.fixture
def registry(tmp_path: Path, release: Release) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "registry")))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(node: WebNode, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["ohif", "fetch", *words, "--settings", str(node.settings.file)])
    return done.exit_code, done.output


def test_what_is_not_installed_is_not_offered(node: WebNode, chest_part: list[Path]) -> None:
    node.receive(chest_part[:2])
    browser = node.signed_in("vera")
    assert browser.get("/ohif/").status_code == browser.get("/ohif/app-config.js").status_code == 404
    assert "OHIF" not in browser.get("/find?q=LIDC-IDRI-0314", follow_redirects=True).text


def test_it_is_fetched_proven_unpacked_and_served_behind_the_sign_in(
    node: WebNode, registry: str, tmp_path: Path, chest_part: list[Path]
) -> None:
    assert fetch(node, "--registry", "ftp://x")[0] == 2
    assert fetch(node, "--registry", f"{registry}/nothing")[0] == 1
    damaged = tmp_path / "damaged.tgz"
    damaged.write_bytes(b"x" + (tmp_path / "registry/@ohif/app/-/app-1.2.3.tgz").read_bytes())
    status, told = fetch(node, "--file", str(damaged))
    assert (status, "SHA-512" in told) == (1, True)
    assert not (tmp_path / "node" / "ohif").exists() or not list((tmp_path / "node" / "ohif").iterdir())

    for _ in range(2):
        assert fetch(node, "--registry", registry)[0] == 0
    folder = node.settings.web.ohif / "1.2.3"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert names == ["app.css", "app.js", "index.html"]
    assert (folder / "app.js").read_text() == 'r.p="/ohif/";x.p = "/ohif/";y.p="//host/"'
    assert (folder / "app.css").read_text() == "a{src:url(/ohif/f.woff2)} b{src:url(data:1)}"

    assert node.client().get("/ohif/viewer").status_code == 303
    browser = node.signed_in("vera")
    page = browser.get("/ohif/viewer?StudyInstanceUIDs=1.2")
    assert "window.PUBLIC_URL = '/ohif/'" in page.text
    assert "manifest" not in page.text
    assert "service-worker" not in page.text
    script = base64.b64encode(hashlib.sha256(b"window.PUBLIC_URL = '/ohif/';").digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"'sha256-{script}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'unsafe-eval' 'sha256" in policy
    assert "http" not in policy
    assert "unsafe" not in browser.get("/").headers["content-security-policy"], "of our own pages nothing is loosened"
    assert '"qidoRoot": "/dicom-web"' in browser.get("/ohif/app-config.js").text
    assert browser.get("/ohif/app.js").text.startswith("r.p")
    for outside in ("/ohif/..%2f..%2fsettings.toml", "/ohif/%2e%2e/1.2.3/../../settings.toml", "/ohif/nothing.js"):
        assert browser.get(outside).status_code == 404
    store_only = node.client(node.token("ann", Right.STORE))
    assert store_only.get("/ohif/viewer").status_code == 403

    node.receive(chest_part[:2])
    shown = browser.get("/find?q=LIDC-IDRI-0314", follow_redirects=True)
    assert 'href="/ohif/viewer?StudyInstanceUIDs=1.3.6.1.4.1.14519' in shown.text


@pytest.mark.timeout(400)
@pytest.mark.skipif(not REAL, reason="OHIF_PACKAGE names no package of the real OHIF")
def test_source_and_segmentation_open_in_the_real_ohif(filled: tuple[WebNode, dict[str, str]]) -> None:
    node, made = filled
    assert fetch(node, "--file", REAL)[0] == 0
    wrong: list[str] = []
    with serving(node) as address, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 1000}, base_url=address)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else None)
        page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
        page.goto("/")
        page.fill("[name=name]", "ann")
        page.fill("[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
        page.goto(f"/jobs/{made['completed']}")
        page.get_by_role("link", name="Open in OHIF").click()
        page.get_by_text("Skip all").click(timeout=60_000)
        page.locator("[data-cy=study-browser-thumbnail-no-image]").filter(has_text="SEG").first.dblclick()
        page.locator("canvas").first.wait_for(timeout=60_000)
        page.wait_for_function("() => !document.body.innerText.includes('Loading SEG')", timeout=60_000)
        page.wait_for_timeout(15_000)  # the images of the series are drawn
        page.mouse.move(900, 500)
        for _ in range(15):
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(100)
        page.wait_for_timeout(3_000)
        if folder := os.environ.get("PICTURES"):
            page.screenshot(path=Path(folder) / "web-ohif.png")
        page.get_by_text("Lung", exact=False).first.wait_for(timeout=60_000)
        browser.close()
    assert wrong == []
