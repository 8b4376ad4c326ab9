"""Models stay loaded within their budget; who was not asked the longest goes first, and who is unknown is alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from ai.process import ModelProcess
from dicom_node.domain.model import ModelCard
from dicom_node.work.warm import WarmModels
from tests.unit.results.case import CARD

A, B, C = (replace(CARD, name=name, bundle=Path(name)) for name in "ABC")


class Process:
    """What the order is about, of a process: whether it is there."""

    def __init__(self, card: ModelCard) -> None:
        self.name, self.pid = card.name, cast("int | None", None)

    def close(self) -> None:
        self.pid = None


@pytest.fixture
def ask() -> Callable[..., str]:
    """Ask models one after another, each named by its card; give the names of those that are loaded then."""
    made: list[Process] = []

    def make(card: ModelCard) -> ModelProcess:
        made.append(Process(card))
        return cast("ModelProcess", made[-1])

    def asked(budget_mib: int | None, past: dict[str, int], *cards: tuple[ModelCard, int]) -> str:
        models = WarmModels(make, budget_mib, lambda card: past.get(card.name))
        for card, held_mib in cards:
            process = models.process_for(card)
            assert process is models.process_for(card), "the same for the same card"
            cast("Process", process).pid = 1
            models.held(card, held_mib)
        warm = "".join(sorted(process.name for process in made if process.pid))
        models.close()
        assert not any(process.pid for process in made)
        return warm

    return asked


def test_without_a_budget_one_model_is_kept(ask: Callable[..., str]) -> None:
    assert ask(None, {}, (A, 100), (B, 100)) == "B"


def test_what_fits_stays(ask: Callable[..., str]) -> None:
    assert ask(1000, {"A": 300, "B": 300, "C": 300}, (A, 300), (B, 300), (C, 300)) == "ABC"


@pytest.mark.parametrize(("order", "left"), [((A, B, C), "BC"), ((A, B, A, C), "AC")])
def test_the_one_that_was_not_asked_the_longest_makes_room(
    order: tuple[ModelCard, ...], left: str, ask: Callable[..., str]
) -> None:
    past = dict.fromkeys("ABC", 400)
    assert ask(1000, past, *((card, 400) for card in order)) == left


def test_a_model_without_a_past_is_loaded_alone_and_known_afterwards(ask: Callable[..., str]) -> None:
    assert ask(1000, {"A": 300}, (A, 300), (B, 300)) == "B"
    assert ask(1000, {"A": 300}, (A, 300), (B, 300), (A, 300)) == "AB"


def test_a_model_that_took_more_than_before_makes_the_others_leave(ask: Callable[..., str]) -> None:
    assert ask(1000, {"A": 300, "B": 300}, (A, 300), (B, 900)) == "B"


def test_a_model_larger_than_the_budget_runs_alone(ask: Callable[..., str]) -> None:
    assert ask(1000, {"A": 300, "B": 5000}, (A, 300), (B, 5000)) == "B"


def test_another_card_of_the_same_name_is_another_model(ask: Callable[..., str]) -> None:
    newer = replace(A, version="2")
    assert ask(1000, {"A": 300}, (A, 300), (newer, 300)) == "A"
