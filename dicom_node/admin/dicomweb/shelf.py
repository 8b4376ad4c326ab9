"""The storage of this process: its threads run only where somebody stores."""

from __future__ import annotations

from threading import Lock

from fastapi import Request

from dicom_node.admin.desk import Desk
from dicom_node.store.storage import Storage


class Shelf:
    """Starts the storage with the first instance that comes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._storage: Storage | None = None
        self._lock = Lock()

    @property
    def storage(self) -> Storage:
        """The storage, running."""
        with self._lock:
            if self._storage is None:
                self._storage = Storage(self._desk.spool, self._desk.engine, self._desk.settings.assemble.waiting())
                self._storage.start()
            return self._storage

    def stop(self, timeout_s: float) -> None:
        """Finish what was handed over, and end the threads."""
        with self._lock:
            if self._storage is not None:
                self._storage.stop(timeout_s)
                self._storage = None


def shelf_of(request: Request) -> Shelf:
    """Return the shelf of the application that serves a request."""
    shelf: Shelf = request.app.state.shelf
    return shelf
