"""An endless stream of training samples in which the n-th depends on the seed and on n alone.

So a training that was interrupted sees, from the step it goes on with, what it would have seen; and how many processes
cut patches makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from torch.utils.data import DataLoader, Dataset

_LEARNT = ("image", "label", "answers")
_CHOOSE, _CUT, _STEP = 1, 2, 3


class Samples(Dataset[Any]):
    """The n-th training sample.

    Parameters
    ----------
    prepared : Dataset
        Prepared cases.
    cut : Compose
        The random part.
    seed : int
    """

    def __init__(self, prepared: Dataset[Any], cut: Compose, seed: int) -> None:
        self._prepared, self._cut, self._seed = prepared, cut, seed
        assert isinstance(prepared, Sized)
        self._count = len(prepared)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Cut sample `number`. Every case comes once before any comes twice."""
        turn, place = divmod(number, self._count)
        order = np.random.default_rng([self._seed, _CHOOSE, turn]).permutation(self._count)
        self._cut.set_random_state(seed=number_of(self._seed, _CUT, number))
        sample = self._cut(self._prepared[int(order[place])])
        found = sample[0] if isinstance(sample, list) else sample
        return {key: _plain(found[key]) for key in _LEARNT if key in found}


def _plain(found: Any) -> torch.Tensor:
    """Without what MONAI remembers of an image: neither a batch nor another process needs it."""
    return torch.as_tensor(found.as_tensor() if isinstance(found, MetaTensor) else found)


def batches(samples: Samples, first: int, steps: int, batch: int, workers: int) -> Iterator[Any]:
    """Batches of the steps `first` to `steps`, without the latter.

    Parameters
    ----------
    samples : Samples
    first, steps : int
        Steps counted from 0.
    batch : int
        Samples in a step.
    workers : int
        Processes that cut; 0 cuts in this one.
    """
    numbers = [list(range(step * batch, (step + 1) * batch)) for step in range(first, steps)]
    pinned = torch.cuda.is_available()
    yield from DataLoader(samples, batch_sampler=numbers, num_workers=workers, pin_memory=pinned)


def seed_step(seed: int, step: int) -> None:
    """Make what the network itself draws at this step, such as dropout, a matter of seed and step."""
    torch.manual_seed(number_of(seed, _STEP, step))


def number_of(*parts: int) -> int:
    """A number below 2³² that depends on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
