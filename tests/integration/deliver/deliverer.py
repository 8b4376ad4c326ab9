"""A delivering process for tests: `python -m tests.integration.deliver.deliverer SETTINGS SLOT`."""

from __future__ import annotations

import sys
from pathlib import Path

from dicom_node import logs
from dicom_node.app import run_role, stop_on_signals
from dicom_node.settings import load_settings

if __name__ == "__main__":
    settings = load_settings(Path(sys.argv[1]), {})
    logs.configure("info", "text", "deliver")
    run_role(settings, "deliver", int(sys.argv[2]), stop_on_signals())
