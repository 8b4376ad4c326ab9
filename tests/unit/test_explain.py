"""Times as a person reads them elsewhere: on which clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from dicom_node.explain import clock_time


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("UTC0", "2026-11-24 09:04:16 UTC"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-11-24 10:04:16 CET"),
        ("<-03>3", "2026-11-24 06:04:16 UTC-03:00"),
    ],
)
def test_a_time_names_its_zone(zone: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", zone)
        time.tzset()
        said = clock_time(datetime(2026, 11, 24, 9, 4, 16, tzinfo=UTC))
    time.tzset()
    assert said == told
