"""A rule has to name the series of a study as the bundle of its model does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.catalog import Catalog
from dicom_node.domain.rule import Role, Rule
from dicom_node.models.roles import role_problems
from tests.integration.operated import CARD
from tests.unit.ai.bundles import write_bundle


def asked(tmp_path: Path, *roles: str, channels: tuple[str, ...] = ("T1", "FLAIR")) -> list[str]:
    bundle = write_bundle(tmp_path / "bundle")
    file = bundle / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    image = {"num_channels": len(channels), "channel_def": dict(enumerate(channels))}
    metadata["network_data_format"]["inputs"] = {"image": image}
    file.write_text(json.dumps(metadata))
    rule = Rule("brats", "lung", ("pacs",), (), inputs=tuple(Role(name, ()) for name in roles))
    return role_problems(Catalog((rule,), {"lung": replace(CARD, bundle=bundle)}, {}))


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        (("FLAIR", "T1"), []),
        ((), ["rule brats: inputs: lung takes 2 series; write [inputs.ROLE] for each of T1, FLAIR"]),
        (("T1",), ["rule brats: inputs: lung takes FLAIR as well; write [inputs.FLAIR]"]),
        (
            ("T1", "FLAYR"),
            [
                "rule brats: inputs.FLAYR: lung takes T1, FLAIR; did you mean 'FLAIR'?",
                "rule brats: inputs: lung takes FLAIR as well; write [inputs.FLAIR]",
            ],
        ),
    ],
)
def test_every_series_that_a_model_takes_is_named(tmp_path: Path, roles: tuple[str, ...], told: list[str]) -> None:
    assert asked(tmp_path, *roles) == told


def test_a_model_of_one_series_may_have_it_chosen_but_not_two(tmp_path: Path) -> None:
    assert asked(tmp_path / "a", "image", channels=("image",)) == []
    assert asked(tmp_path / "b", "T1", "T2", channels=("image",)) == ["rule brats: inputs: lung takes one series"]
