"""Stored values of one image are those that another decoder finds, with the sign that the header tells."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.pixels import StoredImage
from tests.ct import small_ct
from tests.enhanced import as_enhanced

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
