"""The process of a model, made of its card and the settings: the one place where the two meet."""

from __future__ import annotations

from dataclasses import asdict

from ai.process import ModelProcess
from dicom_node.domain.model import ModelCard
from dicom_node.settings import Work


def process_of(card: ModelCard, work: Work) -> ModelProcess:
    """Make the process that a model is asked in; it is started with the first question.

    Parameters
    ----------
    card : ModelCard
        A bundle, or a program.
    work : Work
        Section ``[work]`` of the settings.
    """
    return ModelProcess(
        card.bundle,
        device=work.device,
        memory_mib=work.memory_mib,
        confine=work.confine,
        account=work.account,
        changes=card.changes,
        amp=card.amp,
        windows=work.windows,
        command=asdict(card.command) if card.command is not None else None,
    )
