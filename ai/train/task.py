"""What the training loop asks of a task: a network, patches, a loss, a judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from monai.transforms.compose import Compose
from torch.utils.data import Dataset

from ai.train.cases import Case

Rows = list[dict[str, Any]]


class Task(Protocol):
    """One kind of model. `prepared` cases are what its own preprocessing made of a `Case`."""

    network_config: Mapping[str, Any]

    def begin(self, network: torch.nn.Module) -> None:
        """Set what a network with random weights had better begin with."""

    def prepare(self, cases: Sequence[Case], *, training: bool) -> Dataset[Any]:
        """Cases, ready but for what is random; indexed by their number."""

    def cut(self) -> Compose:
        """The random part: one training sample out of a prepared case."""

    def loss(self, network: torch.nn.Module, batch: Mapping[str, Any], device: torch.device) -> torch.Tensor:
        """Loss of one batch."""

    def judge(
        self, network: torch.nn.Module, prepared: Dataset[Any], device: torch.device, keep: Path | None = None
    ) -> Rows:
        """One row of figures for each case, under ``case`` its name; ``score`` is the one to maximise.

        What the network said of each case is written to the folder `keep`, where one is given.
        """


Say = Callable[[str], None]
