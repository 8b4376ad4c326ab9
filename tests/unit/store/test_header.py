"""The header of a data set, against pydicom's reader, and against data sets made to hurt."""

from __future__ import annotations

import struct
import time
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.domain.study import HEADER
from dicom_node.errors import CannotUnderstand
from dicom_node.store.header import read_header, read_series_uid

FILES = sorted((Path(__file__).parents[2] / "data" / "transfer_syntaxes").glob("*.dcm"))


class Bytes:
    """A data set in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.most_read = 0

    def read(self, position: int, length: int) -> bytes:
        self.most_read = max(self.most_read, length)
        return self._data[position : position + length]


def encoded(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(buffer, ds)
    data = bytes(buffer.getvalue())
    if syntax == DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflater.compress(data) + deflater.flush()
    return data


def example() -> Dataset:
    """Nested sequences before and between what is wanted, an unknown private one, and several kinds of value."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    inner = Dataset()
    inner.SOPInstanceUID = "9.9.9"  # of another object: must not be taken for ours
    inner.Modality = "XX"
    inner.ReferencedSeriesSequence = Sequence([Dataset(), Dataset()])
    ds.ReferencedImageSequence = Sequence([inner, inner])
    ds.Modality, ds.SeriesDescription = "CT", "Thorax für Müller"
    ds.DiffusionBValue = 1000.5
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.ImagePositionPatient = ["-48.5", "0", "12.25"]
    ds.Rows, ds.Columns = 512, 256
    ds.PixelData = bytes(200_000)
    ds["PixelData"].VR = "OW"
    return ds


EXPECTED = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPInstanceUID": "1.2.3.4",
    "Modality": "CT",
    "SeriesDescription": "Thorax für Müller",
    "DiffusionBValue": 1000.5,
    "ImagePositionPatient": ["-48.5", "0", "12.25"],
    "Rows": 512,
    "Columns": 256,
}


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.name,
)
def test_values_are_read_in_every_encoding_and_never_from_inside_a_sequence(syntax: UID, undefined: bool) -> None:
    ds = example()
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
                item["ReferencedSeriesSequence"].is_undefined_length = undefined
    source = Bytes(encoded(ds, syntax))
    header = read_header(source, syntax)
    assert {key: header.get(key) for key in EXPECTED} == EXPECTED
    assert header.keys() <= set(HEADER)
    assert source.most_read <= 64 * 1024, "the pixels are not read"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_real_slice_reads_as_pydicom_reads_it(path: Path) -> None:
    content = path.read_bytes()
    ds = dcmread(BytesIO(content))
    header = read_header(
        Bytes(content[144 + int.from_bytes(content[140:144], "little") :]), ds.file_meta.TransferSyntaxUID
    )
    for keyword in HEADER:
        value = ds.get(keyword)
        assert as_text(header.get(keyword)) == as_text(value), keyword


def as_text(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [str(v) for v in (value if not isinstance(value, (str, int, float)) else [value])]


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        ("", b"Thorax", "Thorax"),
        ("ISO_IR 100", b"F\xfc\xdfe", "Füße"),
        ("ISO_IR 192", "胸部CT".encode(), "胸部CT"),
        ("\\ISO 2022 IR 87", b"\x1b$B6;It\x1b(B CT", "胸部 CT"),
        ("GB18030", "胸部".encode("gb18030"), "胸部"),
        ("ISO_IR 192", b"caf\xe9", "caf\ufffd"),
        ("NO SUCH SET", b"F\xfc\xdfe", "Füße"),
        ("ISO_IR 192", b"a\0b\x01c\x7fd ", "abcd"),
    ],
)
def test_texts_are_decoded_and_hold_nothing_that_no_database_takes(charset: str, value: bytes, text: str) -> None:
    data = element(0x0008, 0x0005, b"CS", charset.encode()) + element(0x0008, 0x103E, b"LO", value)
    assert read_header(Bytes(data), ExplicitVRLittleEndian)["SeriesDescription"] == text


def test_a_number_that_is_none_is_left_out() -> None:
    data = element(0x0018, 0x9087, b"FD", struct.pack("<d", float("nan"))) + element(0x0028, 0x0010, b"US", b"\1")
    assert read_header(Bytes(data), ExplicitVRLittleEndian) == {}


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


NESTED = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("data", "syntax", "why"),
    [
        (NESTED * 10_000, ExplicitVRLittleEndian, "levels deep"),
        (element(0x0008, 0x0060, b"CS", b"") * 500_000, ExplicitVRLittleEndian, "elements"),
        (NESTED + bytes(8) * 100, ExplicitVRLittleEndian, "ends inside|none can be"),
        (struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 60) + b"CT", ExplicitVRLittleEndian, "ends inside"),
        (b"\x08\0\x60", ExplicitVRLittleEndian, "ends inside"),
        (zlib.compress(bytes(10))[1:], DeflatedExplicitVRLittleEndian, "inflated"),
    ],
    ids=["deep", "many", "item", "short", "stub", "no deflate"],
)
def test_what_cannot_be_walked_is_refused_soon(data: bytes, syntax: UID, why: str) -> None:
    began = time.process_time()
    with pytest.raises(CannotUnderstand, match=why):
        read_header(Bytes(data), syntax)
    assert time.process_time() - began < 3


def test_a_deflate_bomb_costs_neither_memory_nor_time() -> None:
    private = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 0xF0000000)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = (
        deflater.compress(private) + b"".join(deflater.compress(bytes(1 << 20)) for _ in range(40)) + deflater.flush()
    )
    began = time.process_time()
    with pytest.raises(CannotUnderstand, match="16 MiB"):
        read_header(Bytes(bomb), DeflatedExplicitVRLittleEndian)
    assert time.process_time() - began < 2


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]))
def test_any_bytes_are_a_header_or_refused(data: bytes, syntax: UID) -> None:
    with suppress(CannotUnderstand):
        read_header(Bytes(data), syntax)


def test_the_series_of_what_came_only_in_part_is_known_once_it_came_so_far() -> None:
    ds = example()
    ds.SeriesInstanceUID, ds.PixelData = "1.2.3.5", bytes(1000)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        data = encoded(ds, syntax)
        assert read_series_uid(Bytes(data), syntax) == "1.2.3.5"
        assert read_series_uid(Bytes(data[:60]), syntax) == ""
    assert read_series_uid(Bytes(encoded(ds)[:-900]), ExplicitVRLittleEndian) == "1.2.3.5"
    assert read_series_uid(Bytes(encoded(ds).replace(b"1.2.3.5", b"../etc/")), ExplicitVRLittleEndian) == ""
