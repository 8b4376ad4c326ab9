"""Classes that a model chose, judged: ROC and AUC, confusion, calibration; intervals over scans. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.evaluate.bootstrap import RESAMPLES, Interval, bootstrap

BINS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said of one finding, and what it is.

    Parameters
    ----------
    scan : str
        Answers about one scan are drawn together in the bootstrap.
    probabilities : mapping of str to float
        One for each class, adding up to one.
    truth : str
        One of the classes.
    """

    scan: str
    probabilities: Mapping[str, float]
    truth: str


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence: their mean confidence, the share of them that is right, and how many they are."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """A receiver operating characteristic: one point for each score that occurs, from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Area under the curve by trapezoids: a tie counts half. NaN if one of the two kinds is absent."""
        return float(np.trapezoid(self.true_positive_rate, self.false_positive_rate))


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """How well one question is answered.

    Parameters
    ----------
    names : tuple of str
        The classes.
    confusion : numpy.ndarray of int, shape (classes, classes)
        Rows are the truth, columns what was chosen (the most probable class).
    auc : mapping of str to Interval
        Each class against the rest.
    roc : mapping of str to Roc
        The curves that those areas lie under.
    accuracy : Interval
        Share of right choices.
    brier : Interval
        Mean squared distance between probabilities and truth, summed over classes, 0 to 2 (Brier 1950).
    ece : Interval
        Expected calibration error: mean distance between confidence and accuracy over `BINS` bins of equal width,
        weighted by their counts (Guo et al., ICML 2017).
    bins : tuple of Bin
        Those that are not empty.
    """

    names: tuple[str, ...]
    confusion: NDArray[np.int64]
    auc: Mapping[str, Interval]
    roc: Mapping[str, Roc]
    accuracy: Interval
    brier: Interval
    ece: Interval
    bins: tuple[Bin, ...]


def classification(
    answers: Sequence[Answer], names: tuple[str, ...], *, resamples: int = RESAMPLES, seed: int = 0
) -> Classification:
    """Judge the answers to one question.

    Parameters
    ----------
    answers : sequence of Answer
        At least one.
    names : tuple of str
        The classes, in the order of the confusion matrix.
    resamples, seed : int
        See `bootstrap`.

    Raises
    ------
    ValueError
        If there is no answer, or one has another class, or probabilities that do not add up to one.
    """
    probabilities, truth, scan = _arrays(answers, names)
    chosen = probabilities.argmax(axis=1)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (truth, chosen), 1)

    def figures(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = drawn[scan]
        if not weights.any():
            return np.full(3 + len(names), np.nan)
        accuracy = np.average(chosen == truth, weights=weights)
        areas = [roc(probabilities[:, n], truth == n, weights).auc for n in range(len(names))]
        return np.array([accuracy, _brier(probabilities, truth, weights), _ece(probabilities, truth, weights), *areas])

    accuracy, brier, ece, *areas = bootstrap(figures, int(scan.max()) + 1, resamples=resamples, seed=seed)
    return Classification(
        names,
        confusion,
        dict(zip(names, areas, strict=True)),
        {name: roc(probabilities[:, n], truth == n) for n, name in enumerate(names)},
        accuracy,
        brier,
        ece,
        _bins(probabilities, truth, np.ones(len(truth))),
    )


def roc(score: NDArray[np.float64], positive: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> Roc:
    """Compute the curve of a score.

    Parameters
    ----------
    score : numpy.ndarray of float, shape (answers,)
        Grows with certainty.
    positive : numpy.ndarray of bool, shape (answers,)
        What is true.
    weights : numpy.ndarray of float, shape (answers,), optional
        How often each answer counts; once without it.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf) != 0)
    counted = np.ones(len(score)) if weights is None else weights
    counts = [np.cumsum((counted * kind)[order])[ends] for kind in (~positive, positive)]
    with np.errstate(invalid="ignore"):
        false, true = (np.concatenate([[0.0], count / count[-1]]) for count in counts)
    return Roc(false, true)


def table(question: str, found: Classification) -> list[str]:
    """Lines of Markdown: the confusion matrix with each class's AUC, and a line of figures."""
    lines = [
        f"| {question}: truth ↓ chosen → | " + " | ".join(found.names) + " | AUC against the rest (95 % CI) |",
        "|---" * (len(found.names) + 2) + "|",
    ]
    for name, row in zip(found.names, found.confusion, strict=True):
        lines.append(f"| {name} | " + " | ".join(str(count) for count in row) + f" | {found.auc[name]} |")
    lines += ["", f"Accuracy {found.accuracy}, Brier score {found.brier}, expected calibration error {found.ece}."]
    return lines


def _arrays(
    answers: Sequence[Answer], names: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    if not answers:
        raise ValueError("There is no answer to judge.")
    for answer in answers:
        if answer.truth not in names or set(answer.probabilities) != set(names):
            raise ValueError(f"{answer.scan}: an answer has other classes than {', '.join(names)}.")
    probabilities = np.array([[answer.probabilities[name] for name in names] for answer in answers])
    if (probabilities < 0).any() or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("The probabilities of an answer do not add up to one.")
    scan = np.unique([answer.scan for answer in answers], return_inverse=True)[1]
    return probabilities, np.array([names.index(answer.truth) for answer in answers]), scan


def _brier(probabilities: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    wanted = np.eye(probabilities.shape[1])[truth]
    return float(np.average(((probabilities - wanted) ** 2).sum(axis=1), weights=weights))


def _ece(probabilities: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    bins = _bins(probabilities, truth, weights)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / sum(one.count for one in bins)


def _bins(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[Bin, ...]:
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count, confident, correct = (
        np.bincount(which, weights * values, minlength=BINS) for values in (1.0, confidence, right)
    )
    return tuple(Bin(confident[n] / count[n], correct[n] / count[n], round(count[n])) for n in np.flatnonzero(count))
