"""``python -m dicom_node.conformance PAGE``: write the tables of a conformance statement anew."""

from __future__ import annotations

import sys
from pathlib import Path

from dicom_node.conformance import refreshed

if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(refreshed(page.read_text()))
