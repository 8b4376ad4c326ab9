"""Logging to standard error: a line per record, as text or JSON, with UIDs and our own ids and nothing of a patient."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

# Bound to a record with `extra={"job": job.id}`: the ids by which one story is found across processes.
BOUND = ("association", "series", "job", "delivery")

# Libraries whose chatter would drown ours, or that print whole data sets when they are talkative.
_DICOM = ("pynetdicom", "pydicom", "highdicom")
_QUIET = (*_DICOM, "alembic", "sqlalchemy", "dbos", "monai", "matplotlib", "PIL", "uvicorn")


def configure(level: str, form: Literal["text", "json"], process: str) -> None:
    """Send this process's records to standard error.

    Parameters
    ----------
    level : str
        ``debug``, ``info``, ``warning`` or ``error``; other people's libraries speak from ``warning`` up.
    form : {"text", "json"}
        One readable line, or one JSON object a line.
    process : str
        Role and slot, e.g. ``receive/1``: several processes write to one stream.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if form == "json" else TextLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """``2026-11-23T10:02:11.123Z INFO    receive/1  text  [series=1b2c…]``."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it when there is one."""
        ids = " ".join(f"{key}={value}" for key, value in _bound(record).items())
        line = f"{_time(record)} {record.levelname:<7} {self._process:<10} {record.getMessage()}"
        line += f"  [{ids}]" if ids else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, process, logger, message, the bound ids, and the traceback if any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        entry: dict[str, object] = {
            "at": _time(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_bound(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _bound(record: logging.LogRecord) -> dict[str, str]:
    return {key: str(value) for key in BOUND if (value := getattr(record, key, None)) is not None}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
