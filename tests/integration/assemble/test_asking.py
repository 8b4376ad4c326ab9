"""A PACS is asked how many instances a series has: what is complete closes at once, and what is missing is missed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from dicom_node.app import _counts
from dicom_node.assemble import Assembler
from dicom_node.catalog import load_catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.settings import Settings
from tests.ct import small_ct
from tests.integration.operated import Operated, operated
from tests.node import free_port
from tests.peers.orthanc import Orthanc
from tests.stored import store_files

SLICES = 8


@dataclass
class Asking:
    """A node that asks a PACS."""

    node: Operated
    home: Path
    pacs: Orthanc

    def assembler(self, way: str = "dimse", port: int | None = None, **assemble: Any) -> Assembler:
        destination = {
            "dimse": {"host": "127.0.0.1", "port": port or self.pacs.dicom_port, "ae_title": self.pacs.ae},
            "stow": {"kind": "stow", "url": f"{self.pacs.url}/dicom-web"},
        }[way]
        document = {**self.node.settings.model_dump(exclude={"assemble", "destinations"}), "rules": self.home}
        times = {"quiet_s": 3600, "patience_s": 7200, "ask": "pacs", "ask_after_s": 1e-6, **assemble}
        settings = Settings.model_validate(document | {"assemble": times, "destinations": {"pacs": destination}})
        counts = _counts(load_catalog(settings))
        self.settings = settings
        return Assembler(
            settings, self.node.catalog, self.node.engine, self.node.enqueuer, self.node.spool, counts=counts
        )

    def come(self, paths: Sequence[Path]) -> None:
        store_files(self.node.engine, self.node.spool, paths, sources=self.settings.assemble.waiting())
        time.sleep(0.002)

    def send_to_pacs(self, paths: Sequence[Path]) -> None:
        for path in paths:
            with urlopen(Request(f"{self.pacs.url}/instances", data=path.read_bytes())):
                pass

    def row(self) -> Any:
        with transaction(self.node.engine) as tx:
            return tx.execute(select(t.series)).one()

    def patience_ends(self) -> None:
        with transaction(self.node.engine) as tx:
            tx.execute(update(t.series).values(settle_at=utc_now(), patient_until=utc_now()))


@pytest.fixture
def asking(tmp_path: Path, orthanc_module: Orthanc) -> Iterator[Asking]:
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node:
        (tmp_path / "rules").mkdir()
        orthanc_module.know("AINODE", 104)
        yield Asking(node, tmp_path / "rules", orthanc_module)


@pytest.fixture
def series(tmp_path: Path) -> Callable[[], list[Path]]:
    return lambda: small_ct(tmp_path / "series", slices=SLICES, rows=16, columns=16)


@pytest.mark.parametrize("way", ["dimse", "stow"])
def test_a_series_that_is_all_here_closes_at_once(asking: Asking, series: Callable[[], list[Path]], way: str) -> None:
    assembler = asking.assembler(way)
    paths = series()
    asking.send_to_pacs(paths)
    asking.come(paths)
    assert assembler.sweep() == 0
    assert assembler.ask() == 1
    assert assembler.sweep() == 1
    assert asking.row().close_reason == f"all {SLICES} instances are here: pacs has {SLICES}"
    assert [job["state"] for job in asking.node.jobs()] == ["scheduled"]


@pytest.mark.parametrize(("incomplete", "state"), [("refuse", "failed"), ("run", "scheduled")])
def test_what_the_pacs_has_more_of_is_waited_for_and_never_passed_over(
    asking: Asking, series: Callable[[], list[Path]], incomplete: str, state: str
) -> None:
    assembler = asking.assembler(incomplete=incomplete)
    paths = series()
    asking.send_to_pacs(paths)
    asking.come(paths[1:])  # regular without it, too
    assembler.ask()
    assert assembler.sweep() == 0
    uid = str(dcmread(paths[0]).SeriesInstanceUID)
    lacking = f"7 of 8 instances arrived (pacs has {SLICES})"
    assert f"No result yet: {lacking}, and the rest is waited for until" in asking.node.told(uid)
    asking.patience_ends()
    assert assembler.sweep() == 1
    (job,) = asking.node.jobs()
    assert (job["state"], job["error"]) == (state, f"{lacking}." if state == "failed" else None)
    assert lacking in asking.row().close_reason
    if state == "scheduled":
        assert asking.node.claim(job["id"]).note == lacking
        assert f"; incomplete: {lacking}" in asking.node.told(uid)
    asking.come(paths[:1])
    assembler.ask()
    assert assembler.sweep() == 1
    assert asking.row().revision == 2
    assert asking.node.jobs(state="scheduled")[0]["error"] is None


def test_a_pacs_that_does_not_know_the_series_decides_nothing(asking: Asking, series: Callable[[], list[Path]]) -> None:
    assembler = asking.assembler()
    asking.come(series())
    assembler.ask()
    assert assembler.sweep() == 0
    with transaction(asking.node.engine) as tx:
        tx.execute(update(t.series).values(settle_at=utc_now()))
    assert assembler.sweep() == 1
    assert re.fullmatch(r"quiet for \d+ s; pacs has none", asking.row().close_reason)


def test_a_pacs_that_does_not_answer_costs_patience_and_is_named(
    asking: Asking, series: Callable[[], list[Path]]
) -> None:
    assembler = asking.assembler(port=free_port())
    asking.come(series())
    assembler.ask()
    with transaction(asking.node.engine) as tx:
        tx.execute(update(t.series).values(settle_at=utc_now()))
    assert assembler.sweep() == 0
    asking.patience_ends()
    assert assembler.sweep() == 1
    assert "pacs could not be asked: no connection to pacs" in asking.row().close_reason
    assert [job["state"] for job in asking.node.jobs()] == ["scheduled"]
