"""What every page and endpoint works with, made once by app.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import Request
from sqlalchemy import Connection, Engine

from dicom_node.catalog import Catalog
from dicom_node.db.engine import reading, transaction, utc_now
from dicom_node.domain.delivery import Destination
from dicom_node.engine import Enqueuer
from dicom_node.rulebook import Rulebook
from dicom_node.settings import Settings
from dicom_node.spool import Spool


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that a request may need.

    Attributes
    ----------
    echo : callable
        Asks a destination for an answer (C-ECHO); seconds. Raises DeliveryError.
    """

    settings: Settings
    rulebook: Rulebook
    engine: Engine
    enqueuer: Enqueuer
    spool: Spool
    echo: Callable[[Destination], float]
    started_at: datetime = field(default_factory=utc_now)

    @property
    def catalog(self) -> Catalog:
        """Rules as their files say now, models and destinations as at the start."""
        self.rulebook.look()
        return self.rulebook.catalog

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot of the database."""
        with reading(self.engine) as tx:
            yield tx

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction."""
        with transaction(self.engine) as tx:
            yield tx


def desk_of(request: Request) -> Desk:
    """Return the desk of the application that serves a request."""
    desk: Desk = request.app.state.desk
    return desk
