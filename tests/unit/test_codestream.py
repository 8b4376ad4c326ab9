"""What compressed frames say of their size."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from dicom_node.codestream import check_frame, check_object, check_size, size_of
from dicom_node.errors import GeometryError
from dicom_node.pixels import StoredImage

FILES = ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KI.dcm"]


@pytest.mark.parametrize("name", FILES)
def test_a_frame_says_its_size_before_it_is_decoded(name: str) -> None:
    ds = dcmread(str(get_testdata_file(name)))
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    assert size_of(frame) == (ds.Rows, ds.Columns)
    assert all(size_of(frame[:length]) in (None, (ds.Rows, ds.Columns)) for length in range(min(len(frame), 2_000)))
    with pytest.raises(GeometryError, match="says that it has"):
        check_size(frame, ds.Rows + 1, ds.Columns)


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8" + b"\xff" * 100, b"\xff\xd8\xff\xe0\0\0" * 9, b"RLE"])
def test_bytes_that_are_no_code_stream_say_nothing(frame: bytes) -> None:
    assert size_of(frame) is None
    check_size(frame, 512, 512)


def test_a_frame_that_claims_four_billion_pixels_is_not_decoded() -> None:
    data = Path(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))).read_bytes()
    ds = dcmread(BytesIO(data))
    honest = b"\xff\xf7\x00\x0b" + bytes([ds.BitsStored]) + ds.Rows.to_bytes(2, "big") + ds.Columns.to_bytes(2, "big")
    assert data.count(honest) == 1
    bomb = data.replace(honest, honest[:5] + b"\xff\xff\xff\xff")
    with pytest.raises(GeometryError, match="65535 x 65535"):
        StoredImage.of(bomb).stored_values()


def test_a_long_run_of_nothing_is_not_unpacked() -> None:
    ds = dcmread(str(get_testdata_file("MR_small_RLE.dcm")))
    check_frame(ds, 0)
    check_object(ds)
    ds.PixelData = encapsulate([bytes(4 * ds.Rows * ds.Columns * 2)])
    with pytest.raises(GeometryError, match="too long for 64 x 64"):
        check_frame(ds, 0)
    with pytest.raises(GeometryError, match="too long for 64 x 64"):
        check_object(ds)


def test_frames_are_counted_together_where_all_are_decoded() -> None:
    ds = dcmread(str(get_testdata_file("CT_small.dcm")))
    ds.NumberOfFrames = 100_000
    check_frame(ds, 0)
    with pytest.raises(GeometryError, match="100000 frames"):
        check_object(ds)
    del ds.Rows
    with pytest.raises(GeometryError, match="does not say"):
        check_frame(ds, 0)


def test_a_code_stream_inside_a_file_says_its_size_as_well() -> None:
    ds = dcmread(str(get_testdata_file("693_J2KI.dcm")))
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    assert size_of(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100) + frame) == (ds.Rows, ds.Columns)
    with pytest.raises(GeometryError, match="16384 components"):
        size_of(frame[:40] + b"\x40\x00" + frame[42:])
