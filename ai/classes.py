"""What a bundle says of an image as a whole: classes with their shares, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ai.contract import ModelInvalidOutput
from ai.interface import otherwise


def classes_in(answer: Any, names: Sequence[str]) -> dict[str, float]:
    """Read how sure a model is of each class.

    Parameters
    ----------
    answer : torch.Tensor
        Post-processed: a share for each class, a decision for each, the number of the class that was decided on, or
        the raw scores of the network, which a softmax turns into shares. Of a single class how likely it is.
    names : sequence of str
        Of the classes, in their order.

    Raises
    ------
    ModelInvalidOutput
        If it is none of these.
    """
    values = _numbers(answer)
    if len(values) == 1 and list(names) == [names[0], otherwise(names[0])]:
        share = float(values[0]) if 0 <= values[0] <= 1 else float(1 / (1 + np.exp(-values[0])))
        return {names[0]: share, names[1]: 1 - share}
    if len(values) == 1 and len(names) > 1:
        decided = int(values[0])
        if decided != values[0] or not 0 <= decided < len(names):
            raise ModelInvalidOutput(f"The model decided on class {values[0]:g}; its metadata names {len(names)}.")
        return {name: float(number == decided) for number, name in enumerate(names)}
    if len(values) != len(names):
        raise ModelInvalidOutput(f"The model gave {len(values)} classes; its metadata names {len(names)}.")
    if values.min() < 0 or values.max() > 1:
        scores = np.exp(values - values.max())
        values = scores / scores.sum()
    return {name: float(share) for name, share in zip(names, values, strict=True)}


def values_in_answer(answer: Any, names: Sequence[str]) -> dict[str, float]:
    """Read the numbers that a model gives.

    Raises
    ------
    ModelInvalidOutput
        If they are not as many as there are names, or not finite.
    """
    values = _numbers(answer)
    if len(values) != len(names):
        raise ModelInvalidOutput(f"The model gave {len(values)} numbers; its metadata names {len(names)}.")
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _numbers(answer: Any) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().cpu().numpy()
    if not isinstance(answer, np.ndarray):
        raise ModelInvalidOutput("The model's answer is no row of numbers.")
    array = answer.astype(np.float64)
    if array.size != max(array.shape, default=0) or array.size == 0:
        raise ModelInvalidOutput(f"The model's answer has the shape {tuple(array.shape)}; it should be one row.")
    if not np.isfinite(array).all():
        raise ModelInvalidOutput("The model's output contains NaN or infinity.")
    return array.reshape(-1)
