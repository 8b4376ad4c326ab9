"""The conformance statement says what the code does, today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_node.conformance import TABLES, refreshed
from dicom_node.conformance.example import made
from dicom_node.conformance.objects import attributes
from dicom_node.deliver.status import judge
from dicom_node.domain.model import OutputKind
from dicom_node.errors import DeliveryError

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"


def test_the_committed_statement_is_current() -> None:
    assert refreshed(PAGE.read_text()) == PAGE.read_text(), "write it anew: make conformance"


def test_every_table_has_its_place_in_the_statement() -> None:
    assert set(re.findall(r"<!-- table: ([A-Za-z ]+) -->", PAGE.read_text())) == set(TABLES)


def test_a_stale_table_is_replaced_and_the_words_around_it_are_kept() -> None:
    page = "Words.\n\n<!-- table: rejections -->\n| old |\n<!-- end -->\n\nMore.\n"
    fresh = refreshed(page)
    assert fresh.startswith("Words.\n\n<!-- table: rejections -->\n| Result, source, reason | When |\n")
    assert fresh.endswith("\n<!-- end -->\n\nMore.\n")
    assert "old" not in fresh
    with pytest.raises(KeyError):
        refreshed("<!-- table: nobody makes it -->\n<!-- end -->\n")


def test_the_example_makes_every_kind_and_the_same_bytes_twice() -> None:
    first = dict(made())
    made.cache_clear()
    assert set(made()) == set(OutputKind)
    assert all(made()[kind] == result for kind, result in first.items())


def test_where_an_attribute_comes_from_is_what_changes_it() -> None:
    said = {(name, kinds): source for name, _, _, kinds, source in attributes()}
    assert said["Patient ID", "all"] == "source images"
    assert said["Institution Name", "all"] == "node's settings"
    assert said["Series Description", "all"] == "model's card"
    assert said["SOP Instance UID", "all"] == "job"
    assert said["Verification Flag", "pdf, viewer_sr, sr, sr-labelmap, sr-fractional"] == "always `UNVERIFIED`"
    assert said["Number of Frames", "seg, seg-fractional"] == "source images, what was found"


def test_the_statuses_of_the_statement_are_judged_so() -> None:
    (line,) = re.findall(r"^\| delivered \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    for status in (int(text, 16) for text in re.findall(r"0x([0-9A-F]{4})", line)):
        assert judge("pacs", status).status == status
    (again, _) = re.findall(r"^\| tried again, with growing waits \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    for status in (int(text, 16) for text in re.findall(r"0x([0-9A-F]{4})", again)):
        with pytest.raises(DeliveryError) as refused:
            judge("pacs", status)
        assert refused.value.retry
