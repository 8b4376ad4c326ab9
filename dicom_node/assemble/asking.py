"""Ask a PACS how many instances a series has: then the last one need not be waited for, and a missing one is missed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from dicom_node.db.completeness import Question, claim_questions, note_told, note_untold
from dicom_node.db.engine import transaction, utc_now
from dicom_node.domain.completeness import Source
from dicom_node.errors import DeliveryError

logger = logging.getLogger(__name__)

# The number of instances of a series, by the UIDs of its study and its own; 0 where it is not known
Count = Callable[[str, str], int]


class Asker:
    """Asks one PACS about the series of the sources that name it.

    Parameters
    ----------
    name : str
        Of the PACS, for a person.
    count : Count
        Asks it; raises DeliveryError when it does not answer.
    """

    def __init__(self, name: str, count: Count, sources: Sequence[Source], engine: Engine) -> None:
        self._name = name
        self._count = count
        self._sources = sources
        self._engine = engine

    def look(self) -> int:
        """Put the questions that are due; how many there were."""
        asked = 0
        for source in self._sources:
            with transaction(self._engine) as tx:
                due = claim_questions(tx, [source.name], source.ask_after_s, utc_now())
            for question in due:
                self._ask(question)
            asked += len(due)
        return asked

    def _ask(self, question: Question) -> None:
        asked_at = utc_now()
        try:
            count = self._count(question.study_instance_uid, question.series_instance_uid)
        except DeliveryError as error:
            logger.warning("series %s: %s", question.series_id, error)
            with transaction(self._engine) as tx:
                note_untold(tx, question.series_id, f"{self._name} could not be asked: {error}")
            return
        logger.info("series %s: %s has %d instances", question.series_id, self._name, count)
        with transaction(self._engine) as tx:
            note_told(tx, question.series_id, count, f"{self._name} has {count or 'none'}", asked_at)
