"""What a drafted card says of outputs that are no segments."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ai.codes import UNKNOWN
from ai.understand import understand
from dicom_node.card import Card, model_card
from dicom_node.domain.model import OutputKind
from dicom_node.models.draft import draft_card, still_unknown
from tests.unit.ai.imaging import adds
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
    assert (second["output"], second["label"]) == ("mitral septal 4CH", "Mitral septal 4CH")
    assert "points.1.type.value" in still_unknown(card)
    assert known.results == ("SR: what was found, measured, in codes",)
    assert len(Card.model_validate(card).points) == 2


def test_a_model_that_registers_gets_its_two_series(tmp_path: Path) -> None:
    card = tomllib.loads(draft_card(understand(finds_shift(tmp_path / "finds")), "finds"))

    assert card["registration"] == {"fixed": "fixed", "moving": "moving"}
    assert not any("registration" in key for key in still_unknown(card))


def filled(draft: str) -> str:
    """A draft in which a person has written something wherever it asks for it."""
    return draft.replace(UNKNOWN, "Somebody")


def test_a_model_that_answers_with_images_gets_a_table_for_each(tmp_path: Path) -> None:
    outputs = {
        "denoised": {"type": "image", "format": "hounsfield", "num_channels": 1},
        "adc_map": {"type": "image", "format": "image", "num_channels": 1},
        "doubt": {"format": "uncertainty", "num_channels": 1, "channel_def": {"0": "uncertainty"}},
    }
    known = understand(adds(tmp_path / "adds", outputs=outputs))

    card = tomllib.loads(draft_card(known, "adds"))

    first, second, third = card["maps"]
    assert (first["output"], first["label"], first["window"]) == ("denoised", "Denoised", [40, 400])
    assert (first["quantity"]["value"], first["unit"]["value"]) == ("112031", "[hnsf'U]")
    assert (second["quantity"]["meaning"], second["unit"]["value"]) == ("Apparent Diffusion Coefficient", "10-6.mm2/s")
    assert third["output"] == "uncertainty"
    assert [key for key in still_unknown(card) if key.startswith("maps")] == [
        "maps.2.quantity.value",
        "maps.2.quantity.meaning",
    ]
    made = model_card(Card.model_validate(tomllib.loads(filled(draft_card(known, "adds")))), tmp_path / "adds")
    assert OutputKind.PM in made.outputs
