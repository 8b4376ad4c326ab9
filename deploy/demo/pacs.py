"""The PACS of the demo: Orthanc where it is installed, else a small storage SCP that says so."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from urllib.error import URLError
from urllib.request import urlopen

from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

AE_TITLE = "DEMOPACS"
PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass(frozen=True)
class Held:
    """One object as the PACS gives it back."""

    sop_instance_uid: str
    series_instance_uid: str
    modality: str
    content: bytes


class PACS(Protocol):
    """What the demo asks of a PACS."""

    name: str
    port: int
    dicomweb: str | None

    def results(self) -> Iterator[Held]:
        """Everything that it holds but the CT."""

    def close(self) -> None:
        """End it."""


def start_pacs(folder: Path, *, builtin: bool = False) -> PACS:
    """Start Orthanc, or the stand-in where Orthanc is not installed or `builtin` asks for it."""
    folder.mkdir(parents=True)
    program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return StorageSCP(folder) if builtin or program is None else Orthanc(folder, program)


class Orthanc:
    """A real Orthanc with a storage folder of its own, DICOMweb on, loopback only."""

    name = "Orthanc"

    def __init__(self, folder: Path, program: str) -> None:
        self.port, self._http = free_port(), free_port()
        self.dicomweb: str | None = f"http://127.0.0.1:{self._http}/dicom-web"
        configuration = {
            "Name": AE_TITLE,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": AE_TITLE,
            "DicomPort": self.port,
            "HttpPort": self._http,
            "DicomAlwaysAllowStore": True,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "TcpNoDelay": True,
            "Plugins": [str(PLUGINS)] if PLUGINS.is_dir() else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        self._log = folder / "orthanc.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, str(folder / "orthanc.json")],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"TCP_NODELAY": "1"},  # the only way for Orthanc 1.10 to answer without a 40 ms wait
            )
        self._wait()

    def results(self) -> Iterator[Held]:
        """Everything that it holds but the CT."""
        for series in self._get("/series?expand"):
            if (modality := series["MainDicomTags"]["Modality"]) == "CT":
                continue
            for instance in series["Instances"]:
                with urlopen(f"http://127.0.0.1:{self._http}/instances/{instance}/file") as answer:
                    content = answer.read()
                uid = self._get(f"/instances/{instance}")["MainDicomTags"]["SOPInstanceUID"]
                yield Held(uid, series["MainDicomTags"]["SeriesInstanceUID"], modality, content)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)

    def _get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self._http}{path}") as answer:
            return json.load(answer)

    def _wait(self) -> None:
        for _ in range(300):
            if self._process.poll() is not None:
                break
            try:
                self._get("/system")
                return
            except (URLError, ConnectionError):
                time.sleep(0.1)
        self._process.kill()
        raise RuntimeError(f"Orthanc did not start; {self._log} says why")


class StorageSCP:
    """A storage SCP on pynetdicom that keeps what it gets as files."""

    name = "the demo's own storage SCP"
    dicomweb: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ae = AE(AE_TITLE)
        ae.supported_contexts = [*AllStoragePresentationContexts]
        ae.add_supported_context(Verification)
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        assert self._server is not None
        assert self._server.socket is not None
        self.port: int = self._server.socket.getsockname()[1]

    def results(self) -> Iterator[Held]:
        """Everything that it holds but the CT."""
        for path in sorted(self._folder.glob("*.dcm")):
            content = path.read_bytes()
            ds = dcmread(BytesIO(content), stop_before_pixels=True)
            if ds.Modality != "CT":
                yield Held(ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.Modality, content)

    def close(self) -> None:
        """End it."""
        assert self._server is not None
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # a C-STORE always has one
        name = "".join(c for c in uid if c in "0123456789.")
        (self._folder / f"{name}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000


def free_port() -> int:
    """Return a TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
