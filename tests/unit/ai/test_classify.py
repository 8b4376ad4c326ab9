"""Classes are judged as the literature defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics.rocauc import compute_roc_auc

from ai.evaluate.classify import Answer, classification, roc, table

NAMES = ("solid", "part-solid", "ground-glass")


def test_figures_of_four_answers_computed_by_hand() -> None:
    answers = [
        _answer("a", (0.8, 0.1, 0.1), "solid"),
        _answer("a", (0.6, 0.4, 0.0), "part-solid"),
        _answer("b", (0.1, 0.2, 0.7), "ground-glass"),
        _answer("b", (0.0, 0.8, 0.2), "part-solid"),
    ]

    found = classification(answers, NAMES, resamples=100)

    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found.accuracy.value == 0.75
    assert found.brier.value == pytest.approx((0.06 + 0.72 + 0.14 + 0.08) / 4)
    assert [(one.count, round(one.accuracy, 3)) for one in found.bins] == [(1, 0), (1, 1), (2, 1)]
    assert found.ece.value == pytest.approx(0.25 * 0.6 + 0.25 * 0.3 + 0.5 * 0.2)
    assert [found.auc[name].value for name in NAMES] == [1, 1, 1]
    assert (found.accuracy.low, found.accuracy.high) == (0.5, 1)
    assert table("attenuation", found)[3] == "| part-solid | 1 | 1 | 0 | 1.000 (1.000 to 1.000) |"


def test_the_area_is_that_of_monai_also_with_ties_and_weights() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(80) < 0.4
    score = np.asarray(np.round(rng.random(80) + 0.3 * positive, 1), dtype=np.float64)
    weights = rng.integers(0, 4, 80)
    repeated = torch.tensor(np.repeat(score, weights)), torch.tensor(np.repeat(positive, weights).astype(int))

    assert roc(score, positive).auc == pytest.approx(compute_roc_auc(torch.tensor(score), torch.tensor(positive * 1)))
    assert roc(score, positive, weights.astype(float)).auc == pytest.approx(compute_roc_auc(*repeated))


def test_a_kind_that_never_occurs_has_no_area_and_nonsense_is_refused() -> None:
    answers = [_answer("a", (0.8, 0.1, 0.1), "solid"), _answer("b", (0.1, 0.8, 0.1), "part-solid")]

    assert np.isnan(classification(answers, NAMES, resamples=10).auc["ground-glass"].value)
    with pytest.raises(ValueError, match="no answer"):
        classification([], NAMES)
    with pytest.raises(ValueError, match="other classes"):
        classification([_answer("a", (0.8, 0.1, 0.1), "calcified")], NAMES)
    with pytest.raises(ValueError, match="add up"):
        classification([_answer("a", (0.8, 0.8, 0.1), "solid")], NAMES)


def _answer(scan: str, probabilities: tuple[float, ...], truth: str) -> Answer:
    return Answer(scan, dict(zip(NAMES, probabilities, strict=True)), truth)
