"""The series that everybody is sent: 300 slices of a real chest CT, as the bytes that go over the wire."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLosslessSV1
from pynetdicom.dsutils import encode

SLICES = Path(__file__).parents[2] / "deploy" / "demo" / "data" / "lidc_idri_0314"
SYNTAXES = {"explicit little endian": str(ExplicitVRLittleEndian), "JPEG lossless": str(JPEGLosslessSV1)}
CONTEXT = 1  # the id of the presentation context
_FRAGMENT = 128 * 1024 - 6
_RUN = "2.25.77{:06d}"  # as long for every run, so that a message is made by replacing bytes
_P_DATA = struct.Struct(">BxIIBB")


@dataclass(frozen=True, slots=True)
class Messages:
    """The requests of one series in one transfer syntax, each as the PDUs that carry it.

    Attributes
    ----------
    data_bytes : int
        Mean size of a data set.
    """

    syntax: str
    requests: list[bytes]
    data_bytes: int

    def of_run(self, number: int) -> list[bytes]:
        """Return the requests of a new study: other UIDs, everything else the same."""
        old, new = _RUN.format(0).encode(), _RUN.format(number).encode()
        return [request.replace(old, new) for request in self.requests]


def messages(syntax: str, count: int) -> Messages:
    """Encode `count` slices; where the scan has fewer it begins again, under new UIDs."""
    slices = sorted(SLICES.glob("*.dcm"))
    requests, size = [], 0
    for number in range(count):
        data = _data_set(slices[number % len(slices)], number, syntax)
        uid = _RUN.format(0) + f".3.{10_000 + number}"
        requests.append(b"".join(_request(uid, number, data)))
        size += len(data)
    return Messages(SYNTAXES[syntax], requests, size // count)


def _data_set(path: Path, number: int, syntax: str) -> bytes:
    ds = dcmread(path)
    pixels = ds.pixel_array
    if syntax == "JPEG lossless":
        ds.PixelData = encapsulate([bytes(imagecodecs.ljpeg_encode(pixels.astype("uint16")))])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    else:
        ds.PixelData = pixels.astype("<i2").tobytes()
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OW", False
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _RUN.format(0) + ".1", _RUN.format(0) + ".2"
    ds.SOPInstanceUID = _RUN.format(0) + f".3.{10_000 + number}"
    encoded = encode(ds, False, True)
    assert encoded is not None
    return bytes(encoded)


def _request(uid: str, number: int, data: bytes) -> Iterator[bytes]:
    """PS3.8 9.3.5: the command in one PDU, the data set in as many as it takes."""
    command = Dataset()
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CTImageStorage, uid
    command.CommandField, command.MessageID, command.Priority = 0x0001, number + 1, 0
    command.CommandDataSetType = 0x0000
    body = encode(command, True, True)
    assert body is not None
    yield _pdu(3, struct.pack("<HHII", 0, 0, 4, len(body)) + body)
    for start in range(0, len(data), _FRAGMENT):
        yield _pdu(2 if start + _FRAGMENT >= len(data) else 0, data[start : start + _FRAGMENT])


def _pdu(control: int, fragment: bytes) -> bytes:
    return _P_DATA.pack(4, len(fragment) + 6, len(fragment) + 2, CONTEXT, control) + fragment
