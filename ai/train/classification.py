"""Classification of whole images: one network, one or several questions, each with its own answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms.compose import Compose
from torch.nn import functional
from torch.utils.data import Dataset

from ai.evaluate.bootstrap import Interval
from ai.evaluate.classify import Answer, classification
from ai.train.cases import Case, CaseSet
from ai.train.networks import network_config
from ai.train.pipeline import augmentation, built, preprocessing
from ai.train.prepared import make_ready
from ai.train.recipe import Recipe
from ai.train.task import Rows

_UNKNOWN = -1


class Classification:
    """The class of an image for each question that ``class`` in ``dataset.json`` asks.

    Parameters
    ----------
    recipe : Recipe
        Its patch is the size that every image is brought to.
    data : CaseSet
        A rare answer weighs as much more as it is rarer, over all cases.
    cache : pathlib.Path
        Folder for prepared cases, where the recipe asks for it.

    Raises
    ------
    ValueError
        If no case has a class, or a question has one answer only.
    """

    def __init__(self, recipe: Recipe, data: CaseSet, cache: Path) -> None:
        self._recipe, self._cache = recipe, cache
        self.questions = data.questions()
        if not self.questions:
            raise ValueError("dataset.json: class: classification needs the class of each case.")
        for question, answers in self.questions.items():
            if len(answers) < 2:
                raise ValueError(f"dataset.json: class: every case answers {question!r} alike, with {answers[0]!r}.")
        self.outputs = tuple(
            answer if len(self.questions) == 1 else f"{question}: {answer}"
            for question, answers in self.questions.items()
            for answer in answers
        )
        self.network_config: Mapping[str, Any] = network_config(recipe, len(data.channels), len(self.outputs))
        self._weights = {
            question: _weights(data.cases, question, answers) for question, answers in self.questions.items()
        }

    def begin(self, network: torch.nn.Module) -> None:
        """Nothing: it begins as MONAI makes it."""

    def prepare(self, cases: Sequence[Case], *, training: bool) -> Dataset[Any]:
        """Whole images, all of one size; an unanswered question is left out of the loss."""
        npz = all(case.images[0].suffix == ".npz" for case in cases)
        steps = preprocessing(self._recipe.data, ("image",), whole=True, npz=npz)
        listed = [
            {
                "image": str(case.images[0]) if len(case.images) == 1 else [str(image) for image in case.images],
                "case": case.name,
                "answers": torch.tensor([self._number(case, question) for question in self.questions]),
            }
            for case in cases
        ]
        return make_ready(listed, built(steps), self._recipe.data.cache, self._cache)

    def cut(self) -> Compose:
        """The image, varied at random."""
        return built(augmentation(self._recipe.augment, self.outputs, ("image",), axes=len(self._recipe.data.patch)))

    def loss(self, network: torch.nn.Module, batch: Mapping[str, Any], device: torch.device) -> torch.Tensor:
        """Cross-entropy of each question, weighted by how rare its answers are; the mean over the questions."""
        logits = network(torch.as_tensor(batch["image"]).to(device, non_blocking=True)).float()
        answers = torch.as_tensor(batch["answers"]).to(device)
        losses = []
        for number, (question, part) in enumerate(self._parts(logits).items()):
            if bool((answers[:, number] != _UNKNOWN).any()):
                weight = self._weights[question].to(device)
                losses.append(functional.cross_entropy(part, answers[:, number], weight, ignore_index=_UNKNOWN))
        return torch.stack(losses).mean() if losses else logits.sum() * 0

    def judge(
        self, network: torch.nn.Module, prepared: Dataset[Any], device: torch.device, keep: Path | None = None
    ) -> Rows:
        """Probability of each answer; ``score`` is the accuracy over the questions of a case."""
        rows: Rows = []
        for number in range(len(prepared)):  # type: ignore[arg-type]
            case = prepared[number]
            logits = network(torch.as_tensor(case["image"])[None].to(device)).float()
            row: dict[str, Any] = {"case": case["case"], "said": {}, "truth": {}}
            right = []
            for place, (question, part) in enumerate(self._parts(logits).items()):
                answers, truth = self.questions[question], int(case["answers"][place])
                if truth != _UNKNOWN:
                    row["said"][question] = dict(zip(answers, torch.softmax(part[0], dim=0).tolist(), strict=True))
                    row["truth"][question] = answers[truth]
                    right.append(float(int(part.argmax()) == truth))
                    row[f"accuracy {question}"] = right[-1]
            rows.append({**row, **({"score": sum(right) / len(right)} if right else {})})
        return rows

    def pooled(self, rows: Rows, *, resamples: int = 1000) -> dict[str, Interval]:
        """Over all rows, for each question: accuracy, Brier score, calibration error, and the AUC of each answer."""
        figures: dict[str, Interval] = {}
        for question, answers in self.questions.items():
            said = [
                Answer(str(row.get("patient", row["case"])), row["said"][question], row["truth"][question])
                for row in rows
                if question in row["truth"]
            ]
            if said:
                found = classification(said, answers, resamples=resamples)
                figures |= {f"accuracy {question}": found.accuracy, f"Brier {question}": found.brier}
                figures |= {f"ECE {question}": found.ece}
                figures |= {f"AUC {question}: {answer}": area for answer, area in found.auc.items()}
        return figures

    def _parts(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes = [len(answers) for answers in self.questions.values()]
        return dict(zip(self.questions, torch.split(logits, sizes, dim=1), strict=True))

    def _number(self, case: Case, question: str) -> int:
        answer = case.answers.get(question)
        return _UNKNOWN if answer is None else self.questions[question].index(answer)


def _weights(cases: Sequence[Case], question: str, answers: Sequence[str]) -> torch.Tensor:
    """Total over count: with them every answer weighs the same, and the mean weight of a case is 1."""
    counts = Counter(case.answers[question] for case in cases if question in case.answers)
    total = sum(counts.values())
    return torch.tensor([total / (len(answers) * counts[answer]) for answer in answers])
