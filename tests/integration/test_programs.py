"""A command line is added like a bundle: its structures get codes, it is pinned, and the PACS gets a segmentation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from ai.codes import UNKNOWN, codes_of
from dicom_node.card import Card, model_digest
from dicom_node.catalog import read_card
from dicom_node.program import command_problems
from tests.ct import small_ct
from tests.integration.test_models import models, state
from tests.unit.ai.programs import CARD, write_program
from tests.unit.test_cli import dicom_node

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    assert dicom_node("init", home).exit_code == 0
    file = home / "settings.toml"
    file.write_text('models = ["models"]\n' + file.read_text())
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_program(tmp_path / "sides")
    (made / "card.toml").write_text(CARD)
    return made


def test_a_program_is_added_gets_codes_and_its_answer_comes_back_as_a_segmentation(
    settings: Path, folder: Path, tmp_path: Path
) -> None:
    added = models(settings, "add", folder)

    assert added.exit_code == 0, added.output
    assert "runs       {python} {model}/sides.py {input} {output} {device}" in added.stdout
    assert "segmentation: left kidney, kidney_right" in added.stdout
    assert state(settings, "sides")["state"] == "on, pinned"
    card = (settings.parent / "models" / "sides" / "card.toml").read_text()
    assert card.count('type = { value = "64033007", scheme = "SCT", meaning = "Kidney" }') == 2

    picture = tmp_path / "answer.png"
    checked = models(settings, "check", "sides", "--run", "--device", "cpu", "-o", picture)
    assert checked.exit_code == 0, checked.output
    assert "it answered on cpu: 2 outputs" in checked.stdout
    assert picture.exists()

    series = tmp_path / "series"
    small_ct(series, slices=12)
    command = ["run", str(series), "-o", str(tmp_path / "out"), "--model", "sides"]
    command = [sys.executable, "-m", "dicom_node", *command, "--models", str(settings.parent / "models")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    segmentation = dcmread(tmp_path / "out" / "seg.dcm")
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["Kidney right"]
    assert np.count_nonzero(segmentation.pixel_array)


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ('runner = "command"\n', "", 'has runner = "command" and a table [command]'),
        ('"{input}", ', "", "command.argv: does not say where {input} goes"),
        ('"{device}"]', '"{gpu}"]', "command.argv: nothing is known as {gpu}; there is device, home, input"),
        ('2 = "kidney_right"', '2 = "left kidney"', "command.labels: 'left kidney' is used twice"),
        ('1 = "left kidney"\n2 = "kidney_right"', "", "command.labels: give either labels"),
        ("version = [", 'input = "dicom"\nversion = [', "command.input: the node writes DICOM of CT, MR, PT alone"),
        ("version = [", 'reads = ["weights"]\nversion = [', "command.reads: 'weights' is no absolute path"),
        ("[command]\n", "[changes]\na = 1\n[command]\n", "changes: a program gives label maps alone"),
        ("{python}", "no-such-program", "there is no program no-such-program on this machine"),
    ],
)
def test_a_card_that_does_not_fit_together_names_the_key(
    settings: Path, folder: Path, was: str, becomes: str, said: str
) -> None:
    file = folder / "card.toml"
    segment = '[[segments]]\noutput = "left kidney"\nlabel = "Kidney"\n'
    for name in ("category", "type"):
        segment += f'{name} = {{ value = "1", scheme = "99TEST", meaning = "Kidney" }}\n'
    text = file.read_text().replace("[command]", f"{segment}\n[command]", 1).replace(was, becomes, 1)
    file.write_text(text.replace('["CT"]', '["US"]') if "dicom" in becomes else text)

    checked = models(settings, "check", folder)

    assert checked.exit_code == 1
    assert said in checked.stderr


def test_the_cards_of_programs_that_we_show_are_cards() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (written,) = [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if 'runner = "command"' in block]
    shown = [written, (ROOT / "deploy" / "models" / "totalsegmentator" / "card.toml").read_text(encoding="utf-8")]

    cards = [Card.model_validate(tomllib.loads(text)) for text in shown]

    for card in cards:
        assert card.command is not None
        assert list(command_problems(card.command, card.accepts.modality)) == []
    assert len(cards[1].command.names) == 117 if cards[1].command else False
    coded = sum(codes_of(name)[1]["value"] != UNKNOWN for name in (cards[1].command.names if cards[1].command else ()))
    assert f"finds codes for {coded} of the names" in page


def test_the_program_itself_is_part_of_what_is_pinned(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "segment"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    card = folder / "card.toml"
    card.write_text(CARD.replace('"{python}", "{model}/sides.py"', f'"{program}"'))
    before = model_digest(folder)
    assert read_card(folder).runner == "command"

    program.write_text("#!/bin/sh\nexit 1\n")

    assert model_digest(folder) != before
