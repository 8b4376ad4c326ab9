"""The lung bundle that ships: complete, and right about a body that was never used to train it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

import ai
from ai.bundle import Bundle
from ai.contract import Volume
from ai.evaluate.overlap import agreement
from ai.phantom.thorax import Thorax, make_thorax
from ai.train.lung import SYNTHETIC

BUNDLE = Path(ai.__file__).parent / "bundles" / "lung_ct"
UNSEEN = SYNTHETIC + 1000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(BUNDLE)


@pytest.fixture(scope="module")
def thorax() -> Thorax:
    return make_thorax(UNSEEN, spacing_mm=4.0)


def test_the_card_names_the_outputs_and_the_version_of_the_bundle(bundle: Bundle) -> None:
    card = tomllib.loads((BUNDLE / "card.toml").read_text())
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())

    assert tuple(segment["output"] for segment in card["segments"]) == bundle.outputs == ("left lung", "right lung")
    assert card["version"] == bundle.version == metadata["version"]
    assert "not for clinical use" in card["training"]


def test_the_bundle_is_complete_and_small() -> None:
    assert all((BUNDLE / part).is_file() for part in ("LICENSE", "docs/README.md", "models/model.pt"))
    assert (BUNDLE / "models" / "model.pt").stat().st_size < 8_000_000


@pytest.mark.parametrize("turned", ["feet first, slices reversed", "sagittal"])
def test_it_finds_both_lungs_of_an_unseen_phantom_and_knows_left_from_right(
    turned: str, bundle: Bundle, thorax: Thorax
) -> None:
    volume, labels = thorax.volume, thorax.labels
    if turned == "feet first, slices reversed":
        affine = volume.affine @ np.array([[-1, 0, 0, labels.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        volume, labels = Volume(volume.array[::-1].copy(), affine), labels[::-1]
    if turned == "sagittal":
        volume = Volume(volume.array.transpose(2, 0, 1).copy(), volume.affine[:, [2, 0, 1, 3]])
        labels = labels.transpose(2, 0, 1)

    prediction = bundle.predict(volume)

    for value, name in ((1, "left lung"), (2, "right lung")):
        found = agreement(prediction.mask(name), labels == value, volume.spacing_mm)
        assert found.dice > 0.9, name
        assert found.volume_ml == pytest.approx(found.reference_ml, rel=0.15)


def test_it_finds_no_lung_in_a_block_of_soft_tissue(bundle: Bundle) -> None:
    volume = Volume(np.full((20, 40, 40), 40, np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))

    prediction = bundle.predict(volume)

    assert not prediction.mask("left lung").any()
    assert not prediction.mask("right lung").any()
