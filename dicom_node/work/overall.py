"""What a model says of the image as a whole: its classes and numbers in the codes of its card."""

from __future__ import annotations

from collections.abc import Iterator

from ai.contract import ModelInvalidOutput, Prediction
from dicom_node.domain.finding import Measurement, Quality
from dicom_node.domain.model import ClassificationCard, ModelCard


def said_of_all(prediction: Prediction, card: ModelCard) -> list[Quality]:
    """Answer each question of the card with the class of which the model is surest.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the model does not answer it, or with a class that the card does not know.
    """
    return [_answer(asked, prediction) for asked in card.classifications]


def numbers_of_all(prediction: Prediction, card: ModelCard) -> tuple[Measurement, ...]:
    """Give each number of the card with its unit.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the model does not give it.
    """
    return tuple(_numbers(prediction, card))


def _answer(asked: ClassificationCard, prediction: Prediction) -> Quality:
    said = prediction.classes.get(asked.output)
    if not said:
        raise ModelInvalidOutput(f"The model gives no classes named {asked.output!r}.")
    if unknown := sorted(set(said) - set(asked.answers)):
        raise ModelInvalidOutput(f"The model answers {unknown[0]!r}, an answer that its card does not have.")
    surest = max(said, key=lambda answer: said[answer])
    shares = ", ".join(f"{asked.answers[answer].meaning} {share:.0%}" for answer, share in said.items())
    return Quality(asked.concept, asked.answers[surest], f"the model's own shares, not calibrated: {shares}")


def _numbers(prediction: Prediction, card: ModelCard) -> Iterator[Measurement]:
    for value in card.values:
        if value.output not in prediction.values:
            raise ModelInvalidOutput(f"The model gives no number named {value.output!r}.")
        yield Measurement(value.concept, round(prediction.values[value.output], value.decimals), value.unit)
