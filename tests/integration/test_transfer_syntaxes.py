"""A real slice, encoded by others in every lossless transfer syntax, reads as the same Hounsfield units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from dicom_node.spool import Spool
from dicom_node.volume import Volume, load_volume
from tests.stored import spool_files

FOLDER = Path(__file__).parent.parent / "data" / "transfer_syntaxes"
FILES = sorted(FOLDER.glob("*.dcm"))


def volume_of(file: Path, folder: Path) -> Volume:
    """The slice three times, one above the other: what is no series is no volume."""
    paths = []
    for number in range(3):
        ds = dcmread(file)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], 4.7 + 6.5 * number]
        paths.append(folder / f"{number}.dcm")
        ds.save_as(paths[-1])
    spool = Spool(folder / "spool", reserve_mib=0)
    spool.prepare()
    return load_volume(spool, spool_files(spool, paths))


@pytest.mark.parametrize("file", FILES, ids=lambda file: UID(file.stem).name)
def test_a_real_slice_reads_as_the_same_hounsfield_units(file: Path, tmp_path: Path) -> None:
    assert dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID == file.stem
    plain = dcmread(FOLDER / f"{ExplicitVRLittleEndian}.dcm")
    stored = np.frombuffer(plain.PixelData, "<i2" if plain.PixelRepresentation else "<u2").reshape(512, 512)
    expected = stored * np.float32(plain.RescaleSlope) + np.float32(plain.RescaleIntercept)

    volume = volume_of(file, tmp_path)

    assert volume.spacing_mm == pytest.approx((6.5, 0.675781, 0.675781))
    assert all(np.array_equal(one, expected) for one in volume.array)


def test_every_file_was_found() -> None:
    assert len(FILES) == 10
