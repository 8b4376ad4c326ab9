"""One node for all tests that only look; it is filled once, with one run of the real model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile

import pytest

from tests.integration.web.node import PICTURES, WebNode, fill, fill_quickly, make_database, web_node
from tests.peers.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def chest_part(chest_ct: list[Path]) -> list[Path]:
    """Thirty slices of the middle of the demo's chest CT, enough to find two lungs in; all of it for pictures."""
    return chest_ct if PICTURES else chest_ct[105:135]


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and people, to be copied: making one takes more than a second."""
    file = tmp_path_factory.mktemp("template") / "node.db"
    make_database(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def filled(
    tmp_path_factory: pytest.TempPathFactory, database: Path, chest_part: list[Path]
) -> Iterator[tuple[WebNode, dict[str, str]]]:
    """A node after a day; ids by what became of the jobs. For looking only."""
    home = tmp_path_factory.mktemp("web")
    with web_node(_home(home / "node", database)) as node:
        yield node, fill(node, chest_part, home / "scratch")


@pytest.fixture(scope="session")
def postgresql_database(postgresql: PostgreSQL) -> str:
    """The same on PostgreSQL."""
    url = postgresql.database()
    make_database(url)
    return url


@pytest.fixture
def node(tmp_path: Path, database: Path) -> Iterator[WebNode]:
    """A node of the test's own, with nobody's series and three people."""
    with web_node(_home(tmp_path / "node", database)) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def either_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WebNode]:
    """The same on either database; a module whose `node` shall be that says so."""
    with _new_node(request, tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def listed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebNode]:
    """A node with a little of everything, and no pixels behind its results; for looking only."""
    home = tmp_path_factory.mktemp("listed")
    with _new_node(request, home) as made:
        fill_quickly(made, home / "scratch")
        yield made


@contextmanager
def _new_node(request: pytest.FixtureRequest, home: Path) -> Iterator[WebNode]:
    if request.param == "sqlite":
        with web_node(_home(home / "node", request.getfixturevalue("database"))) as made:
            yield made
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    url = server.database(like=request.getfixturevalue("postgresql_database"))
    with web_node(home / "node", url) as made:
        yield made


def _home(folder: Path, database: Path) -> Path:
    folder.mkdir()
    copyfile(database, folder / "node.db")
    return folder
