"""Peers that stop with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.deliver.peer import MakeScp, Scp


@pytest.fixture
def scp() -> Iterator[MakeScp]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(Scp(**how))
