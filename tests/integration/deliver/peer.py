"""A storage SCP whose answers a test decides, and objects to send to it."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.domain.delivery import Delivery, DimseDestination
from dicom_node.domain.model import OutputKind
from dicom_node.domain.uids import AETitle

LABEL_MAP = UID("1.2.840.10008.5.1.4.1.1.66.7")  # in no dictionary of pydicom yet
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless)
STORED = (
    SegmentationStorage,
    LABEL_MAP,
    SecondaryCaptureImageStorage,
    Comprehensive3DSRStorage,
)
CLASSES = (*STORED, Verification)


class Scp:
    """A storage SCP on loopback. It answers with `statuses` one after the other, the last one for ever."""

    def __init__(
        self,
        *,
        statuses: Sequence[int] = (0x0000,),
        classes: Sequence[UID] = CLASSES,
        syntaxes: Sequence[UID] = SYNTAXES,
        knows: str = "",
        port: int = 0,
        before_answer: Callable[[evt.Event], object] = lambda event: None,
        on_pdu: Callable[[evt.Event], object] = lambda event: None,
        handlers: Sequence[evt.EventHandlerType] = (),
    ) -> None:
        self.received: list[tuple[str, str, bytes]] = []  # SOP Instance UID, transfer syntax, data set as it came
        self._statuses = list(statuses)
        self._before_answer = before_answer
        self._lock = threading.Lock()
        ae = AE("PACS")
        ae.require_calling_aet = [knows] if knows else []
        for sop_class in classes:
            stored = sop_class in STORED
            ae.add_supported_context(sop_class, list(syntaxes) if stored else ImplicitVRLittleEndian)
        self._server = ae.make_server(
            ("127.0.0.1", port),
            server_class=ThreadedAssociationServer,
            evt_handlers=[
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda event: 0x0000),
                (evt.EVT_PDU_RECV, on_pdu),
                *handlers,
            ],
        )
        self.port: int = self._server.server_address[1]
        ae._servers.append(self._server)  # `shutdown` takes it out
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _store(self, event: evt.Event) -> Dataset | int:
        self._before_answer(event)
        with self._lock:
            status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
            if status == 0x0000 or status >> 12 == 0xB:
                request: Any = event.request
                syntax = event.context.transfer_syntax
                self.received.append((request.AffectedSOPInstanceUID, syntax, request.DataSet.getvalue()))
        return status

    @property
    def stored(self) -> list[str]:
        """SOP Instance UIDs in the order in which they came."""
        return [uid for uid, _, _ in self.received]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class MakeScp(Protocol):
    """Starts a peer that stops with the test; takes the arguments of `Scp`."""

    def __call__(self, **how: object) -> Scp: ...


def destination(port: int, *, name: str = "pacs", timeout_s: float = 30.0) -> DimseDestination:
    return DimseDestination(
        name=name,
        host="127.0.0.1",
        port=port,
        ae_title=AETitle("PACS"),
        calling_ae=AETitle("AINODE"),
        timeout_s=timeout_s,
    )


def write_object(
    path: Path, sop_class: UID, *, syntax: UID = ExplicitVRLittleEndian, rows: int = 64, study: str = ""
) -> FileDataset:
    """Write a valid small object of a result's class; a SEG gets `rows` × 512 pixels of noise, eight bits each."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(f"2.25.{uuid.uuid4().int}")
    ds = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = study or f"2.25.{uuid.uuid4().int}"
    ds.SeriesInstanceUID = f"2.25.{uuid.uuid4().int}"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "T1", "Test^Delivery", "", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "120000", "1", "A1"
    ds.ReferringPhysicianName, ds.SeriesNumber, ds.InstanceNumber = "", 1, 1
    ds.Modality = "SR"
    if sop_class != Comprehensive3DSRStorage:
        ds.Modality = "OT" if sop_class == SecondaryCaptureImageStorage else "SEG"
        ds.Rows, ds.Columns, ds.NumberOfFrames, ds.SamplesPerPixel = rows, 512, 1, 1
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.PhotometricInterpretation, ds.SegmentationType = "MONOCHROME2", "FRACTIONAL"
        ds.PixelData = np.random.default_rng(1).integers(0, 255, (rows, 512), np.uint8).tobytes()
    if syntax.is_compressed:
        ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)
    return ds


def delivery_of(path: Path, ds: Dataset) -> Delivery:
    """The delivery of a stored object, as a claim gives it."""
    now = datetime.now(UTC)
    return Delivery(
        id=str(uuid.uuid4()),
        job_id=str(uuid.uuid4()),
        destination="pacs",
        kind=OutputKind.SEG if ds.SOPClassUID == SegmentationStorage else OutputKind.SR,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        path=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        attempt=1,
        created_at=now,
        asked_at=now,
        tries=1,
    )
