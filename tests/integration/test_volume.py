"""Stored series become volumes: exact values and places, in every transfer syntax, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.domain.job import JobInstance
from dicom_node.domain.study import chosen
from dicom_node.errors import GeometryError, SpoolError
from dicom_node.examination import examine_stored
from dicom_node.spool import Spool
from dicom_node.volume import Volume, load_volume
from tests.ct import small_ct
from tests.peers.tools import dcmtk
from tests.stored import spool_files


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", reserve_mib=0)
    spool.prepare()
    return spool


def load(spool: Spool, paths: Sequence[Path]) -> Volume:
    return load_volume(spool, spool_files(spool, paths))


def signed(bits: int) -> object:
    """Slices of a negative offset, whose stored values need their sign."""

    def change(number: int, ds: Dataset) -> Dataset:
        stored = np.frombuffer(ds.PixelData, "<u2").astype(np.int32) - 1024
        ds.PixelData = np.clip(stored, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype("<i2").tobytes()
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 1
        ds.RescaleIntercept = "0"
        return ds

    return change


def test_values_are_rescaled_and_places_are_exact(spool: Spool, tmp_path: Path) -> None:
    def slope_of_its_own(number: int, ds: Dataset) -> Dataset:
        ds.RescaleSlope, ds.RescaleIntercept = str(1 + number / 2), str(-1024 + number)
        return ds

    paths = small_ct(
        tmp_path / "ct", slices=6, rows=48, columns=64, cosines=(0.8, 0.6, 0, 0, 0, -1), change=slope_of_its_own
    )
    volume = load(spool, paths)
    assert volume.array.shape == (6, 48, 64)
    assert volume.array.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((2.5, 1.5, 1.5))
    for k, path in enumerate(paths):
        ds = dcmread(path)
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(48, 64)
        assert np.array_equal(volume.array[k], stored * (1 + k / 2) + (k - 1024))
        assert volume.affine @ [k, 0, 0, 1] == pytest.approx([*map(float, ds.ImagePositionPatient), 1], abs=1e-4)
        assert volume.datasets[k].SOPInstanceUID == ds.SOPInstanceUID
        assert "PixelData" not in volume.datasets[k]
    last = dcmread(paths[-1])
    corner = (
        np.array(last.ImagePositionPatient, float)
        + 63 * 1.5 * np.array([0.8, 0.6, 0])
        + 47 * 1.5 * np.array([0, 0, -1])
    )
    assert volume.affine @ [5, 47, 63, 1] == pytest.approx([*corner, 1], abs=1e-4)


# How dcmtk, which shares no code with our decoders, writes each transfer syntax.
ENCODERS = {
    ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    ExplicitVRBigEndian: ("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    RLELossless: ("dcmcrle",),
    JPEGLossless: ("dcmcjpeg", "+el"),
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls", "+el"),
}


@pytest.mark.parametrize("bits", [12, 15, 16])
@pytest.mark.parametrize("syntax", [*ENCODERS, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_every_lossless_syntax_gives_the_same_signed_values(
    spool: Spool, tmp_path: Path, syntax: str, bits: int
) -> None:
    change = signed(bits)
    plain = small_ct(tmp_path / "plain", slices=3, change=change)  # type: ignore[arg-type]
    if syntax == JPEG2000Lossless:
        encoded = small_ct(tmp_path / "encoded", slices=3, change=change, syntax=JPEG2000Lossless)  # type: ignore[arg-type]
    else:
        encoded = [tmp_path / f"{path.stem}.encoded" for path in plain]
        program, *options = ENCODERS[syntax]  # type: ignore[index]
        for source, target in zip(plain, encoded, strict=True):
            dcmtk(program, *options, str(source), str(target))
    assert dcmread(encoded[0]).file_meta.TransferSyntaxUID == syntax
    expected = load(spool, plain).array
    assert expected.min() < -800
    assert np.array_equal(load(spool, encoded).array, expected)


def test_the_real_chest_ct_decodes_as_another_decoder_does(spool: Spool, tmp_path: Path, chest_ct: list[Path]) -> None:
    some = chest_ct[100:104]
    volume = load(spool, some)
    assert volume.spacing_mm == pytest.approx((1.0, 0.78125, 0.78125))
    for k, path in enumerate(some):
        dcmtk("dcmdjpls", str(path), str(tmp_path / "plain.dcm"))
        ds = dcmread(tmp_path / "plain.dcm")
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(512, 512)
        assert np.array_equal(volume.array[k], stored.astype(np.float32) - 1000)


def test_a_file_that_changed_on_disk_is_not_used(spool: Spool, tmp_path: Path) -> None:
    instances = spool_files(spool, small_ct(tmp_path / "ct", slices=4))
    path = spool.path(instances[2].path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SpoolError, match=f"{instances[2].sop_instance_uid} is not what was received"):
        load_volume(spool, instances)
    path.unlink()
    with pytest.raises(SpoolError, match="has no file"):
        load_volume(spool, instances)


def spoil(tmp_path: Path, number: int, **attributes: object) -> list[Path]:
    def change(k: int, ds: Dataset) -> Dataset:
        for keyword, value in attributes.items() if k == number else ():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        return ds

    return small_ct(tmp_path / "ct", slices=5, change=change)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": b"\0\0"}, "The pixels of instance .* cannot be decoded"),
        ({"PixelData": None}, "The pixels of instance .* cannot be decoded"),
        ({"RescaleSlope": None}, "without Rescale Slope and Intercept: its values are in no known unit"),
        ({"RescaleSlope": "0"}, "which cannot be"),
        ({"RescaleType": "MGML"}, "are in MGML, not in Hounsfield units"),
        ({"ModalityLUTSequence": [Dataset()]}, "has a Modality LUT Sequence"),
        ({"ImagePositionPatient": [0, 0, 17]}, "displaced against each other"),
    ],
)
def test_a_series_that_cannot_be_used_is_refused_with_its_reason(
    spool: Spool, tmp_path: Path, attributes: dict[str, object], reason: str
) -> None:
    paths = spoil(tmp_path, 2, **attributes)
    with pytest.raises(GeometryError, match=reason) as caught:
        load(spool, paths)
    assert not caught.value.retry


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("value", [None, ""])
def test_slices_of_mr_are_all_rescaled_or_none(spool: Spool, tmp_path: Path, keyword: str, value: str | None) -> None:
    def change(k: int, ds: Dataset) -> Dataset:
        ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "MR", "2.5", "3"
        if k == 2:
            setattr(ds, keyword, value)
        elif k == 9:
            del ds.RescaleSlope, ds.RescaleIntercept
        return ds

    def none(k: int, ds: Dataset) -> Dataset:
        return change(9, ds)

    with pytest.raises(GeometryError, match=f"1 of 5 slices without {keyword}, which the others have"):
        load(spool, small_ct(tmp_path / "ct", slices=5, rows=8, columns=8, change=change))
    stored = small_ct(tmp_path / "none", slices=5, rows=8, columns=8, change=none)
    assert np.array_equal(load(spool, stored).array, np.stack([dcmread(path).pixel_array for path in stored]))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_a_broken_code_stream_is_refused_and_names_the_instance(spool: Spool, tmp_path: Path, syntax: str) -> None:
    paths = small_ct(tmp_path / "ct", slices=4)
    program, *options = ENCODERS[syntax]  # type: ignore[index]
    for path in paths:
        dcmtk(program, *options, str(path), str(path))
    ds = dcmread(paths[1])
    ds.PixelData = ds.PixelData[:40] + b"\xff\xd9" * ((len(ds.PixelData) - 60) // 2) + ds.PixelData[-20:]
    ds.save_as(paths[1])
    with pytest.raises(GeometryError, match=f"{ds.SOPInstanceUID} cannot be decoded"):
        load(spool, paths)


def test_slices_in_another_order_than_assembly_found_are_refused(spool: Spool, tmp_path: Path) -> None:
    instances = spool_files(spool, small_ct(tmp_path / "ct", slices=4))
    with pytest.raises(GeometryError, match="in another order"):
        load_volume(spool, instances[::-1])
    stranger: JobInstance = replace(instances[0], sop_instance_uid="1.2.3")
    with pytest.raises(GeometryError, match="in another order"):
        load_volume(spool, [stranger, *instances[1:]])


def test_of_two_interleaved_acquisitions_none_is_read_but_the_chosen_one(spool: Spool, tmp_path: Path) -> None:
    def in_turns(number: int, ds: Dataset) -> Dataset:
        ds.AcquisitionNumber = 1 + number % 2
        return ds

    paths = small_ct(tmp_path / "ct", slices=12, rows=8, columns=8, change=in_turns)
    stored = spool_files(spool, paths)
    with pytest.raises(GeometryError, match=r"AcquisitionNumber 1 .6 slices.; AcquisitionNumber 2 .6 slices."):
        load_volume(spool, stored)
    choice = {"AcquisitionNumber": 2.0}
    by_uid = {one.sop_instance_uid: one for one in stored}
    second = [by_uid[uid] for uid in chosen(examine_stored(stored, spool.path), choice).slices]
    volume = load_volume(spool, second, choice)
    assert volume.spacing_mm == pytest.approx((5.0, 1.5, 1.5))
    assert np.array_equal(volume.array, np.stack([dcmread(path).pixel_array for path in paths[1::2]]) - 1024.0)


def test_two_volumes_that_no_attribute_tells_apart_are_told_by_their_pixels(spool: Spool, tmp_path: Path) -> None:
    def moved(number: int, ds: Dataset) -> Dataset:
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = np.roll(pixels, 6 * (number % 2), axis=0).tobytes()
        return ds

    def of_mr(number: int, ds: Dataset) -> Dataset:
        ds.Modality = "MR"
        return moved(number, ds)

    paths = small_ct(tmp_path / "ct", slices=12, change=moved)
    with pytest.raises(GeometryError, match="more like the next but one than like their neighbours"):
        load(spool, paths)
    assert load(spool, paths[::2]).array.shape[0] == 6
    assert load(spool, small_ct(tmp_path / "mr", slices=12, change=of_mr)).array.shape[0] == 12


def test_a_missing_slice_is_found_again_from_the_files(spool: Spool, tmp_path: Path) -> None:
    instances = spool_files(spool, small_ct(tmp_path / "ct", slices=6))
    del instances[3]
    with pytest.raises(GeometryError, match="A gap: 5 mm between"):
        load_volume(spool, instances)
