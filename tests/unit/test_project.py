"""What the project says of itself is so: pins, sources of data, links, and where SQL is written."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from dicom_node.card import Card
from dicom_node.domain.model import Derived, Measure

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# What anyone may name of SQLAlchemy, beside its errors. Statements are made in db; in engine, over dbos's own tables.
NAMEABLE = {"Connection", "Engine", "Row", "make_url"}
ERRORS = "sqlalchemy.exc"


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[._-]+", "-", found[0]).lower()


def test_everything_that_is_installed_directly_is_pinned_to_what_was_tested() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin)] == []
    wanted = {name_of(r) for r in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]}
    assert wanted - {name_of(pin) for pin in pins} == set()


@pytest.mark.parametrize("folder", [ROOT / "deploy" / "demo" / "data", ROOT / "tests" / "data"], ids=["demo", "tests"])
def test_every_image_lies_beside_or_below_its_source_and_licence(folder: Path) -> None:
    images = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert images
    for image in images:
        above = [parent / "SOURCES.md" for parent in image.parents if parent.is_relative_to(folder)]
        told = [path.read_text() for path in above if path.exists()]
        assert any("licence" in text.lower() for text in told), image


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_links_between_our_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_sql_is_written_in_db_alone() -> None:
    package = ROOT / "dicom_node"
    strays = []
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] in ("db", "engine", "engine.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlalchemy":
                names = {alias.name for alias in node.names}
                if node.module != ERRORS and not names <= NAMEABLE:
                    strays.append(f"{path.relative_to(ROOT)} imports {', '.join(sorted(names - NAMEABLE))}")
    assert strays == []


def test_every_measurement_and_calculation_is_defined_in_the_documentation() -> None:
    page = (ROOT / "docs" / "measurements.md").read_text()
    assert [word for word in (*Measure, *Derived) if f"`{word}`" not in page] == []


def test_the_card_in_the_documentation_is_one() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    written = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert written is not None
    card = Card.model_validate(tomllib.loads(written[1]))
    assert [detection.derive for detection in card.detections]
    absent = [key for key in Card.model_fields["accepts"].annotation.model_fields if f"`{key}`" not in page]  # type: ignore[union-attr]
    assert absent == []
