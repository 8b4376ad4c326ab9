"""Fixtures that several kinds of tests share: real peers, real databases, real images."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.peers.missing import INSTALL, SKIPPED
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL, postgresql

__all__ = ["postgresql"]

# How fast a machine draws examples says nothing of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

DEMO = Path(__file__).parent.parent / "deploy" / "demo" / "data" / "lidc_idri_0314"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Log after each test as before it: a command that is called in this process sets up its own logging."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        return (yield)
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database; every test that asks for it runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'node.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> str:
    """URL of a new, empty PostgreSQL database."""
    return postgresql.database()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc of this test's own; the test may stop and start it."""
    server = Orthanc(tmp_path / "orthanc").start()
    yield server
    server.discard()


@pytest.fixture(scope="module")
def orthanc_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that the tests of one module share."""
    server = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    yield server
    server.discard()


@pytest.fixture(scope="session")
def chest_ct() -> list[Path]:
    """The real chest CT of the demo, LIDC-IDRI-0314: 275 slices, JPEG-LS lossless."""
    files = sorted(DEMO.glob("*.dcm"))
    assert len(files) == 275
    return files


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what PEERS=none left out."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if SKIPPED in str(report.longrepr)]
    if skipped:
        terminalreporter.section("not tested", sep="!", yellow=True)
        terminalreporter.line(f"{len(skipped)} tests need a peer that is not installed. Install the peers: {INSTALL}")
