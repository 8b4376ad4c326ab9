"""The tutorial is run as it is written: its files, its commands in their order, on fewer, smaller and coarser scans."""

from __future__ import annotations

import http.cookiejar
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from pydicom import dcmread

from ai.__main__ import main
from dicom_node.cli import cli
from tests.node import free_port, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
PASSWORD = "a long enough password"
SMALLER = {
    "--cases 10 --spacing-mm 3": "--cases 3 --spacing-mm 9",
    "spacing_mm = [3, 3, 3]": "spacing_mm = [9, 9, 9]",
    "patch = [48, 48, 48]": "patch = [32, 32, 32]",
    "steps = 900": "steps = 20",
    "validate_every = 150": "validate_every = 20",
    "--cases 3 --spacing-mm 3": "--cases 1 --spacing-mm 9",
    "--seed 99 --spacing-mm 3": "--seed 99 --spacing-mm 9",
}
BLOCK = re.compile(r"```(sh|toml)\n(.*?)```", re.DOTALL)


def steps(page: str) -> Iterator[tuple[str, str]]:
    """(file, its text) and ("", command), in the order of the page."""
    for block in BLOCK.finditer(page):
        if block[1] == "toml":
            (*_, file) = re.findall(r"`([\w/]+\.toml)`", page[: block.start()])
            yield file, block[2]
        else:
            yield from (("", line) for line in block[2].splitlines())


class Reader:
    """Somebody who does what the page says."""

    def __init__(self) -> None:
        self.node: subprocess.Popen[bytes] | None = None

    def does(self, command: str) -> str:
        words = shlex.split(command)
        words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        if words[:3] == ["python", "-m", "ai"]:
            assert main(words[3:]) == 0, command
            return ""
        if words[:2] == ["dicom-node", "serve"]:
            self.node = subprocess.Popen([sys.executable, "-m", "dicom_node", *words[1:]])
            return ""
        if words[0] == "dicom-node":
            typed = f"{PASSWORD}\n{PASSWORD}\n" if "user" in words else None
            ran = CliRunner().invoke(cli, words[1:], input=typed)
            assert ran.exit_code == 0, f"{command}\n{ran.output}"
            return ran.output
        subprocess.run(command, shell=True, check=True)
        return ""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    ports = {"RECEIVE": free_port(), "WEB": free_port()}
    for section, port in ports.items():
        monkeypatch.setenv(f"DICOM_NODE__{section}__PORT", str(port))
    monkeypatch.setenv("DICOM_NODE__RECEIVE__PROCESSES", "1")
    monkeypatch.setenv("DICOM_NODE__ASSEMBLE__QUIET_S", "1")
    monkeypatch.setenv("DICOM_NODE__WORK__DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    somebody = Reader()
    yield somebody
    torch.set_num_threads(threads)
    if somebody.node is not None:
        somebody.node.send_signal(signal.SIGTERM)
        somebody.node.wait(180)


def jobs() -> list[dict[str, object]]:
    ran = CliRunner().invoke(cli, ["jobs", "--json", "--settings", "node/settings.toml"])
    found: list[dict[str, object]] = json.loads(ran.stdout)
    return found


@pytest.mark.timeout(900)
def test_who_follows_the_tutorial_sees_the_result_of_the_own_network(reader: Reader) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        assert page.count(old) == 1, f"the tutorial no longer says {old}"
        page = page.replace(old, new)
    page = page.replace("127.0.0.1:11112", f"127.0.0.1:{os.environ['DICOM_NODE__RECEIVE__PORT']}")
    site = f"http://127.0.0.1:{os.environ['DICOM_NODE__WEB__PORT']}"
    assert "http://127.0.0.1:8080" in page
    told = ""
    for file, text in steps(page):
        if file:
            Path(file).write_text(text, encoding="utf-8")
            continue
        if text.startswith("dicom-node send"):
            wait_for(lambda: answers(f"{site}/login"), 300, lambda: "no page")
        if text.startswith("dicom-node jobs"):
            wait_for(lambda: [j for j in jobs() if j["state"] in ("completed", "failed")], 300, lambda: str(jobs()))
        told = reader.does(text)

    (job,) = jobs()
    assert job["state"] == "completed", job
    assert "completed" in told
    assert Path("answer.png").exists()
    wait_for(lambda: len(list(Path("node/sent").rglob("*.dcm"))) == 2, 60, lambda: "nothing was sent")
    sent = {ds.Modality: ds for ds in map(dcmread, Path("node/sent").rglob("*.dcm"))}
    assert [segment.SegmentLabel for segment in sent["SEG"].SegmentSequence] == ["Lung"]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    browser.open(f"{site}/login", f"name=ann&password={PASSWORD.replace(' ', '+')}".encode(), timeout=60)
    with browser.open(f"{site}/jobs/{job['id']}", timeout=60) as shown:
        assert "Lung" in shown.read().decode()
    middle = len(list(Path("patient").glob("ct*.dcm"))) // 2
    with browser.open(f"{site}/jobs/{job['id']}/overlay/{middle}.png", timeout=60) as drawn:
        overlay = np.asarray(Image.open(io.BytesIO(drawn.read())).convert("RGBA"))
    assert np.count_nonzero(overlay[..., 3]) > 50


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
