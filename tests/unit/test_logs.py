"""Logs: one line a record, with the ids that bind a story together."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from dicom_node.logs import JsonLines, TextLines


def record(message: str, *arguments: object, **bound: object) -> logging.LogRecord:
    made = logging.LogRecord("dicom_node.route", logging.WARNING, "route.py", 1, message, arguments, None)
    made.__dict__.update(bound)
    return made


def test_a_text_line_names_process_level_and_bound_ids() -> None:
    line = TextLines("assemble/0").format(record("closed, %d slices", 275, series="1b2c"))
    assert line.endswith("Z WARNING assemble/0 closed, 275 slices  [series=1b2c]")


def test_a_json_line_is_one_object_on_one_line_even_with_a_traceback() -> None:
    try:
        raise ValueError("odd\nvalue")
    except ValueError:
        failed = record("failed\nbadly", job="7f3a", patient="never shown", exc_info=sys.exc_info())
    line = JsonLines("work/0").format(failed)
    entry = json.loads(line)
    assert "\n" not in line
    assert (entry["level"], entry["process"], entry["logger"]) == ("warning", "work/0", "dicom_node.route")
    assert (entry["message"], entry["job"], "patient" in entry) == ("failed\nbadly", "7f3a", False)
    assert "ValueError: odd" in entry["traceback"]


@pytest.mark.parametrize("name", ["pynetdicom", "dbos", "pydicom"])
def test_libraries_that_print_data_sets_are_quiet_even_when_we_are_not(name: str) -> None:
    code = "import logging; from dicom_node import logs; logs.configure('debug', 'text', 'x'); "
    code += f"print(logging.getLogger({name!r}).level)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == str(logging.WARNING)
