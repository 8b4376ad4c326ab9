"""Stored values of one image are those that another decoder finds, with the sign that the header tells."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ImplicitVRLittleEndian, JPEGLossless

from dicom_node.pixels import StoredImage, one_frame
from tests.ct import small_ct
from tests.enhanced import as_enhanced
from tests.peers.tools import dcmtk

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("file", sorted((DATA / "transfer_syntaxes").glob("*.dcm")), ids=lambda file: file.stem)
def test_every_syntax_gives_what_pydicom_gives(file: Path) -> None:
    image = StoredImage.of(file.read_bytes())
    assert "PixelData" not in image.header
    assert np.array_equal(image.stored_values(), pixel_array(dcmread(file), raw=True))


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [10, 12, 15, 16])
def test_bits_beyond_those_stored_are_no_part_of_a_value(
    tmp_path: Path, bits: int, signed: int, *, implicit: bool
) -> None:
    noise = np.random.default_rng(bits).integers(0, 2**16, (64, 64), dtype=np.uint16)

    def change(number: int, ds: Dataset) -> Dataset:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, signed
        ds.PixelData = noise.tobytes()
        return ds

    (path,) = small_ct(tmp_path, slices=1, change=change)
    if implicit:
        ds = dcmread(path)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.save_as(path, implicit_vr=True, little_endian=True)
    low = noise.astype(int) & (2**bits - 1)
    expected = np.where(low >> (bits - 1), low - 2**bits, low) if signed else low
    assert np.array_equal(StoredImage.of(path.read_bytes()).stored_values(), expected)


def test_the_sign_is_that_of_the_header_when_the_code_stream_says_otherwise() -> None:
    data = (DATA / "mismatch" / "J2K_pixelrep_mismatch.dcm").read_bytes()
    ds = dcmread(BytesIO(data))
    assert (ds.PixelRepresentation, ds.BitsStored) == (1, 13)
    stream = imagecodecs.jpeg2k_decode(next(generate_frames(ds.PixelData, number_of_frames=1))).astype(int)
    assert stream.min() >= 0
    expected = np.where(stream >> 12, stream - 2**13, stream)
    assert np.array_equal(StoredImage.of(data).stored_values(), expected)
    assert expected.min() == -2000


def test_a_frame_of_many_is_read_alone(tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=5)
    order = as_enhanced(paths, tmp_path / "enhanced.dcm")
    image = StoredImage.of((tmp_path / "enhanced.dcm").read_bytes())
    for frame, k in enumerate(order):
        assert np.array_equal(image.stored_values(frame), dcmread(paths[k]).pixel_array)
    with pytest.raises(ValueError, match="insufficient pixel data"):
        image.stored_values(5)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_jpeg_lossless_with_every_predictor_gives_what_was_encoded(tmp_path: Path, predictor: int, bits: int) -> None:
    noise = np.random.default_rng(bits).integers(0, 2**bits, (61, 47), dtype=np.uint16)

    def change(number: int, ds: Dataset) -> Dataset:
        ds.BitsStored, ds.HighBit = bits, bits - 1
        ds.PixelData = noise.tobytes() + b"\0\0" * (noise.size % 2)
        return ds

    (path,) = small_ct(tmp_path, slices=1, rows=61, columns=47, change=change)
    dcmtk("dcmcjpeg", "+el", "+sv", str(predictor), str(path), str(path))
    assert dcmread(path).file_meta.TransferSyntaxUID == JPEGLossless
    assert np.array_equal(StoredImage.of(path.read_bytes()).stored_values(), noise)


def test_a_jpeg_stream_without_its_end_is_refused(tmp_path: Path) -> None:
    (path,) = small_ct(tmp_path, slices=1)
    dcmtk("dcmcjpeg", "+e1", str(path), str(path))
    ds = dcmread(path)
    stream = next(generate_frames(ds.PixelData, number_of_frames=1)).rstrip(b"\0")
    for cut in (stream[: len(stream) // 2], stream[:-2]):
        ds.PixelData = encapsulate([cut])
        ds.save_as(path)
        with pytest.raises(ValueError, match="without its end"):
            StoredImage.of(path.read_bytes()).stored_values()


@pytest.mark.parametrize("read_it", [False, True])
def test_a_frame_of_bits_that_begins_within_a_byte_is_found(tmp_path: Path, *, read_it: bool) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (5, 7, 9), dtype=np.uint8)
    ds = dcmread(small_ct(tmp_path, slices=1)[0])
    ds.Rows, ds.Columns, ds.NumberOfFrames = 7, 9, 5
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = ds.PixelRepresentation = 0
    packed = np.packbits(masks.ravel(), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    file = tmp_path / "seg.dcm"
    ds.save_as(file)

    found = [one_frame(dcmread(file) if read_it else file, index) for index in range(5)]

    assert np.array_equal(found, masks)
