"""What a drafted card says of outputs that are no segments."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ai.understand import understand
from dicom_node.card import Card
from dicom_node.models.draft import draft_card, still_unknown
from tests.unit.ai.registering import finds_shift
from tests.unit.ai.test_landmarks import BY_POINT, middles


def test_a_model_of_points_gets_a_table_for_each(tmp_path: Path) -> None:
    known = understand(
        middles(tmp_path / "points", BY_POINT, channel_def={"0": "kidney_right", "1": "mitral septal 4CH"})
    )

    card = tomllib.loads(draft_card(known, "points"))

    first, second = card["points"]
    assert (first["output"], first["label"], first["type"]["meaning"]) == ("kidney_right", "Kidney right", "Kidney")
    assert first["laterality"]["meaning"] == "Right"
    assert (second["output"], second["label"]) == ("mitral septal 4CH", "Mitral septal 4ch")
    assert "points.1.type.value" in still_unknown(card)
    assert known.results == ("SR: what was found, measured, in codes",)
    assert len(Card.model_validate(card).points) == 2


def test_a_model_that_registers_gets_its_two_series(tmp_path: Path) -> None:
    card = tomllib.loads(draft_card(understand(finds_shift(tmp_path / "finds")), "finds"))

    assert card["registration"] == {"fixed": "fixed", "moving": "moving"}
    assert not any("registration" in key for key in still_unknown(card))
