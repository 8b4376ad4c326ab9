"""Rules that follow their files: taken when they settle, and never when they are wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dicom_node.catalog import Catalog, load_catalog, rule_problems
from dicom_node.rulebook import Change, Rulebook
from dicom_node.settings import Settings, load_settings

SETTINGS = """\
[destinations.pacs]
host = "127.0.0.1"
port = 4242
ae_title = "PACS"
"""
RULE = """\
model = "lung_ct"
destinations = ["pacs"]
[when]
Modality = "CT"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "chest.toml").write_text(RULE)
    return load_settings(tmp_path / "settings.toml")


@pytest.fixture
def book(settings: Settings) -> Rulebook:
    return Rulebook(settings, load_catalog(settings), settled_s=0.0)


def rules(book: Rulebook) -> list[str]:
    return [rule.name for rule in book.catalog.rules]


def test_what_did_not_change_is_not_read_again(book: Rulebook) -> None:
    before = book.catalog
    assert book.look() is None
    assert book.catalog is before


def test_added_changed_and_removed_rules_count_at_once_and_are_named(book: Rulebook, settings: Settings) -> None:
    (settings.rules / "abdomen.toml").write_text(RULE)
    assert book.look() == Change(added=("abdomen",))
    assert rules(book) == ["abdomen", "chest"]
    (settings.rules / "abdomen.toml").write_text(RULE.replace('CT"', 'MR"'))
    (settings.rules / "chest.toml").unlink()
    assert book.look() == Change(changed=("abdomen",), removed=("chest",))
    assert [str(c) for rule in book.catalog.rules for c in rule.conditions] == ["Modality is MR"]


def test_a_mistake_leaves_the_rules_of_before_until_it_is_mended(
    book: Rulebook, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    before = book.catalog
    (settings.rules / "good.toml").write_text(RULE)
    (settings.rules / "bad.toml").write_text(RULE.replace("lung_ct", "lung_tc"))
    with caplog.at_level(logging.WARNING):
        change = book.look()
    assert change is not None
    assert "there is no model 'lung_tc'" in change.problems[0]
    assert "those of before still count" in caplog.text
    assert book.catalog is before
    assert book.problems == change.problems
    assert book.look() is None  # told once
    (settings.rules / "bad.toml").write_text(RULE)
    assert book.look() == Change(added=("bad", "good"))
    assert book.problems == ()


def test_a_file_that_is_still_written_is_left_alone(settings: Settings) -> None:
    book = Rulebook(settings, load_catalog(settings), settled_s=3600.0)
    (settings.rules / "abdomen.toml").write_text(RULE)
    assert book.look() is None
    assert rules(book) == ["chest"]


def test_a_catalog_that_comes_from_no_file_follows_none(settings: Settings) -> None:
    made = Catalog((), load_catalog(settings).models, {})
    book = Rulebook(settings, made, settled_s=0.0)
    assert book.look() is None
    assert book.catalog is made


def test_what_is_wrong_is_known_without_reading_a_bundle(settings: Settings) -> None:
    assert rule_problems(settings) == []
    (settings.rules / "bad.toml").write_text(RULE.replace("pacs", "pasc"))
    (problem,) = rule_problems(settings)
    assert "there is no destination 'pasc'" in problem
