"""Peers that stop with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.deliver.peer import MakeScp, Scp
from tests.integration.deliver.site import Site, open_site


@pytest.fixture
def scp() -> Iterator[MakeScp]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(Scp(**how))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from open_site(f"sqlite:///{tmp_path / 'node.db'}", tmp_path)


@pytest.fixture
def each_site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """One site on SQLite, then one on PostgreSQL."""
    yield from open_site(database_url, tmp_path)
