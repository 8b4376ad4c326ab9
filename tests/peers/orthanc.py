"""Orthanc as the PACS: a real process with a storage of its own, which can be down for a while."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.node import free_port
from tests.peers.missing import need
from tests.peers.owned import owned

PLUGINS = Path("/usr/share/orthanc/plugins")


class Orthanc:
    """One Orthanc. `ae`, `dicom_port` and `url` stay the same over `stop` and `start`, and so does what it holds.

    Parameters
    ----------
    folder : pathlib.Path
        Where it keeps everything.
    more
        Options of its configuration, put over ours.
    """

    ae = "ORTHANC"

    def __init__(self, folder: Path, **more: Any) -> None:
        self._program = need("Orthanc", folders=(Path("/usr/sbin"),))  # not on every user's PATH
        self.folder = folder
        self.dicom_port, http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{http_port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "Name": self.ae,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": self.ae,
            "DicomPort": self.dicom_port,
            "HttpPort": http_port,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "TcpNoDelay": True,  # otherwise each association waits 40 ms for acknowledgements
            "Plugins": [str(PLUGINS)] if PLUGINS.is_dir() else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **more,
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))

    def start(self) -> Orthanc:
        """Start it and wait until it answers."""
        with (self.folder / "orthanc.log").open("ab") as log:
            # Orthanc 1.10 heeds the variable, not the setting: without it each of its answers takes 40 ms
            self._process = subprocess.Popen(
                owned(self._program, str(self.folder / "orthanc.json")),
                stdout=log,
                stderr=log,
                env=os.environ | {"TCP_NODELAY": "1"},
            )
        end = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.discard()
                raise AssertionError("Orthanc does not answer: " + (self.folder / "orthanc.log").read_text())
            time.sleep(0.1)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, once it has been started."""
        assert self._process is not None
        return self._process

    def stop(self) -> None:
        """End it, by force if it takes too long; what it holds stays."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(180)
        except subprocess.TimeoutExpired:
            self.discard()
        self._process = None

    def discard(self) -> None:
        """End it at once: nobody wants what it holds. Ending it in order takes Orthanc seconds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            self.get("/system")
        except (URLError, ConnectionError):
            return False
        return True

    def get(self, path: str) -> Any:
        """Ask its REST interface."""
        with urlopen(f"{self.url}{path}") as answer:
            return json.load(answer)

    def know(self, ae_title: str, port: int, **options: Any) -> None:
        """Tell it of a modality on this machine: it then answers its queries, and reports to it."""
        body = json.dumps({"AET": ae_title, "Host": "127.0.0.1", "Port": port, **options}).encode()
        with urlopen(Request(f"{self.url}/modalities/{ae_title}", data=body, method="PUT")):
            pass

    def lose(self, sop_instance_uid: str) -> None:
        """Have it forget an instance that it holds."""
        with urlopen(Request(f"{self.url}/tools/lookup", data=sop_instance_uid.encode())) as answer:
            [found] = json.load(answer)
        with urlopen(Request(f"{self.url}{found['Path']}", method="DELETE")):
            pass

    def clear(self) -> None:
        """Have it forget everything that it holds."""
        for patient in self.get("/patients"):
            with urlopen(Request(f"{self.url}/patients/{patient}", method="DELETE")):
                pass

    def held(self) -> list[str]:
        """The SOP Instance UIDs that it holds."""
        return sorted(self.get(f"/instances/{one}/tags?simplify")["SOPInstanceUID"] for one in self.instances())

    def file(self, instance_id: str) -> bytes:
        """The bytes of one instance, by Orthanc's own id."""
        with urlopen(f"{self.url}/instances/{instance_id}/file") as answer:
            content: bytes = answer.read()
        return content

    def instances(self, study_uid: str = "") -> list[str]:
        """Orthanc's ids of the instances it holds, of one study or of all."""
        studies = self.get("/studies?expand")
        chosen = [s["ID"] for s in studies if study_uid in ("", s["MainDicomTags"]["StudyInstanceUID"])]
        return [i["ID"] for study in chosen for i in self.get(f"/studies/{study}/instances")]

    def files(self, study_uid: str = "") -> Iterator[bytes]:
        """The bytes of every instance it holds, of one study or of all."""
        for instance in self.instances(study_uid):
            yield self.file(instance)
