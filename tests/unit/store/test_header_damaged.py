"""The header reader on pydicom's odd files, whole, cut off and damaged: it reads or refuses, and always ends soon."""

from __future__ import annotations

import random
import time
import warnings
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.multival import MultiValue

from dicom_node.domain.study import HEADER
from dicom_node.errors import CannotUnderstand
from dicom_node.store.header import read_header

FILES = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "J2K_pixelrep_mismatch.dcm",  # ISO 2022 IR 87
    "badVR.dcm",
    "rtplan.dcm",
    "liver_1frame.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
]


class Bytes:
    """A data set in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, position: int, length: int) -> bytes:
        return self._data[position : position + length]


def sample(name: str) -> tuple[bytes, str]:
    """Data set and transfer syntax of a test file."""
    file = Path(str(get_testdata_file(name))).read_bytes()
    meta = dcmread(BytesIO(file), stop_before_pixels=True).file_meta
    return file[144 + int.from_bytes(file[140:144], "little") :], str(meta.TransferSyntaxUID)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom minds some of its own files
@pytest.mark.parametrize("name", FILES)
def test_it_reads_what_pydicom_reads(name: str) -> None:
    ds = dcmread(str(get_testdata_file(name)), stop_before_pixels=True)
    data, syntax = sample(name)
    found = read_header(Bytes(data), syntax)
    assert {key: comparable(found.get(key)) for key in HEADER} == {key: comparable(ds.get(key)) for key in HEADER}


def comparable(value: object) -> list[object]:
    """Trimmed texts, and numbers by value: pydicom writes some of them anew."""
    if value is None or value == "":
        return []
    values = [str(v).strip() for v in (value if isinstance(value, (list, MultiValue)) else [value])]
    try:
        return [float(v) for v in values]
    except ValueError:
        return [*values] if any(values) else []


@pytest.mark.parametrize("name", FILES[:4])
def test_a_data_set_that_ends_anywhere_is_read_or_refused(name: str) -> None:
    data, syntax = sample(name)
    whole = read_header(Bytes(data), syntax)
    for end in range(0, min(len(data), 1500), 3):
        try:
            found = read_header(Bytes(data[:end]), syntax)
        except CannotUnderstand:
            continue
        assert found.items() <= whole.items()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_data_set_is_read_or_refused_without_a_warning_and_soon(name: str) -> None:
    rng = random.Random(name)
    data, syntax = sample(name)
    before = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            damaged = bytearray(data[:4000])
            for _ in range(rng.randrange(1, 8)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            try:
                found = read_header(Bytes(bytes(damaged)), syntax)
            except CannotUnderstand:
                continue
            texts = "".join(str(value) for value in found.values())
            assert "\0" not in texts
            texts.encode()  # no lone surrogates
    assert time.process_time() - before < 5
