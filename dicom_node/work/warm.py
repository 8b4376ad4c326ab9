"""Models that are kept loaded within a budget of memory: the one that was not asked for the longest time makes room."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ai.process import ModelProcess
from dicom_node.domain.model import ModelCard

_log = logging.getLogger(__name__)


class WarmModels:
    """The processes of models, in the order in which they were last asked.

    Parameters
    ----------
    make : callable
        Gives the process of a model; it starts when it is asked.
    budget_mib : int, optional
        What they may hold together: of the GPU's memory where they run on one, else of main memory. Without it one
        model at a time is kept.
    expected_mib : callable
        What a model has held before, as past attempts say; None for one without a past, which is loaded alone.
    """

    def __init__(
        self,
        make: Callable[[ModelCard], ModelProcess],
        budget_mib: int | None,
        expected_mib: Callable[[ModelCard], int | None],
    ) -> None:
        self._make, self._budget_mib, self._expected_mib = make, budget_mib, expected_mib
        self._kept: dict[str, tuple[ModelCard, ModelProcess]] = {}  # the last one was asked last
        self._held_mib: dict[str, int] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the models that are loaded, or about to be."""
        return tuple(process.pid for _, process in list(self._kept.values()) if process.pid is not None)

    def process_for(self, card: ModelCard) -> ModelProcess:
        """Give the process of a model. Where it has to be loaded, others make room for it first."""
        kept = self._kept.pop(card.name, None)
        if kept is not None and kept[0] is not card:
            kept[1].close()
            kept = None
        process = kept[1] if kept is not None else self._make(card)
        if process.pid is None:
            self._make_room(self._needed_mib(card))
        self._kept[card.name] = card, process
        return process

    def held(self, card: ModelCard, memory_mib: int) -> None:
        """Learn how much a model has held at most; if that is more than was thought, others make room."""
        self._held_mib[card.name] = memory_mib
        if (kept := self._kept.pop(card.name, None)) is not None:
            self._make_room(memory_mib)
            self._kept[card.name] = kept

    def close(self) -> None:
        """End all processes."""
        for _, process in self._kept.values():
            process.close()
        self._kept.clear()

    def _needed_mib(self, card: ModelCard) -> int | None:
        if card.name not in self._held_mib and self._budget_mib is not None:
            known = self._expected_mib(card)
            if known is None:
                return None
            self._held_mib[card.name] = known
        return self._held_mib.get(card.name)

    def _make_room(self, needed_mib: int | None) -> None:
        while self._kept and not self._has_room(needed_mib):
            name = next(iter(self._kept))
            _, process = self._kept.pop(name)
            if process.pid is not None:
                _log.info("model %s makes room", name)
            process.close()

    def _has_room(self, needed_mib: int | None) -> bool:
        if self._budget_mib is None or needed_mib is None:
            return False
        loaded = [name for name, (_, process) in self._kept.items() if process.pid is not None]
        return needed_mib + sum(self._held_mib.get(name, self._budget_mib) for name in loaded) <= self._budget_mib
