"""A PACS whose honesty a test decides: it stores, answers queries and commits itself, or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.dsutils import decode
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
)

from tests.integration.deliver.peer import CLASSES, Scp

ALL = (*CLASSES, StorageCommitmentPushModel, StudyRootFind)


class Archive(Scp):
    """A PACS.

    Parameters
    ----------
    loses : int
        So many of the objects that it takes are gone at once; all the same it answers 0x0000.
    reports_to : int, optional
        Our listener: reports of storage commitment come on a new association to it; without, on the same one.
    reports : bool
        Whether they come at all.
    """

    def __init__(
        self, *, loses: int = 0, reports_to: int = 0, reports: bool = True, classes: Sequence[UID] = ALL, **how: Any
    ) -> None:
        self.loses = loses
        self.asked: list[str] = []  # transaction UIDs
        self._reports_to, self._reports = reports_to, reports
        self._threads: list[threading.Thread] = []
        handlers: list[evt.EventHandlerType] = [(evt.EVT_N_ACTION, self._commit), (evt.EVT_C_FIND, self._find)]
        super().__init__(classes=classes, handlers=handlers, **how)

    @property
    def held(self) -> list[str]:
        """What it still has of what it took."""
        return self.stored[self.loses :]

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        assert wanted.QueryRetrieveLevel == "IMAGE"
        for uid, syntax, data in self.received[self.loses :]:
            ds = decode(BytesIO(data), syntax == ImplicitVRLittleEndian, True)
            if (ds.StudyInstanceUID, ds.SeriesInstanceUID) == (wanted.StudyInstanceUID, wanted.SeriesInstanceUID):
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.StudyInstanceUID, match.SeriesInstanceUID = ds.StudyInstanceUID, ds.SeriesInstanceUID
                match.SOPInstanceUID = uid
                yield 0xFF00, match

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append(asked.TransactionUID)
        if self._reports:
            thread = threading.Thread(target=self._report, args=(event.assoc, asked))
            thread.start()
            self._threads.append(thread)
        return 0x0000, None

    def _report(self, assoc: Any, asked: Dataset) -> None:
        said = Dataset()
        said.TransactionUID = asked.TransactionUID
        held = self.held
        said.ReferencedSOPSequence = [i for i in asked.ReferencedSOPSequence if i.ReferencedSOPInstanceUID in held]
        failed = [i for i in asked.ReferencedSOPSequence if i.ReferencedSOPInstanceUID not in held]
        for item in failed:
            item.FailureReason = 0x0112
        if failed:
            said.FailedSOPSequence = failed
        kind = 2 if failed else 1
        if not self._reports_to:
            threading.Event().wait(0.1)  # the response to the request goes first
            assoc.send_n_event_report(said, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
            return
        ae = AE("PACS")
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        back = ae.associate("127.0.0.1", self._reports_to, ae_title="AINODE", ext_neg=[role])
        assert back.is_established
        back.send_n_event_report(said, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        back.release()

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
        super().close()
