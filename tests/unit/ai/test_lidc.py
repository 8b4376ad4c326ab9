"""Readings of LIDC-IDRI become the voxels that the readers meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from ai.contract import Volume
from ai.data.lidc import mask_of, nodules_of, volume_ml
from ai.data.lidc_xml import read_lidc_xml
from tests.conftest import DEMO


def test_a_nodule_lies_strictly_within_its_outline_and_an_exclusion_cuts_a_hole(tmp_path: Path) -> None:
    reading = read_lidc_xml(_xml(tmp_path, _session(_nodule("a", _square(2, 8), _square(4, 6, inclusion="FALSE")))))
    volume = _volume()

    mask = mask_of(reading.marks[0], volume)

    assert np.argwhere(mask.any(axis=(1, 2))).ravel().tolist() == [3]
    expected = np.zeros((12, 12), bool)
    expected[3:8, 3:8] = True
    expected[5, 5] = False
    assert np.array_equal(mask[3], expected)
    assert volume_ml(reading.marks[0], volume) == pytest.approx(24 * 2.5 / 1000)


def test_overlapping_marks_are_one_nodule_and_what_too_few_readers_outlined_is_excluded(tmp_path: Path) -> None:
    lone = _nodule("lone", _square(8, 11))
    sessions = [
        _session(_nodule("1", _square(1, 7), texture=1, malignancy=5), lone, _point(9, 2)),
        _session(_nodule("2", _square(1, 6), texture=3, malignancy=4)),
        _session(_nodule("3", _square(2, 7), texture=3, malignancy=4)),
        _session(),
    ]
    reading = read_lidc_xml(_xml(tmp_path, *sessions))

    (first, second, point), instances = nodules_of(reading, _volume((7.5, 1.0, 1.0)))

    assert reading.readers == 4
    assert not first.excluded
    assert second.excluded
    assert point.excluded
    assert first.volume_ml == pytest.approx((25 + 16 + 16) / 3 * 7.5 / 1000)
    assert first.diameter_mm == pytest.approx((6 * 142.5 / np.pi) ** (1 / 3))
    assert (first.attenuation, first.margin) == ("ground-glass", "smooth")
    assert first.malignancy == pytest.approx(13 / 3)
    # Two of three readers: rows and columns 2 to 6, less the corner that only the first reader has.
    assert (instances == first.instance).sum() == 16 + 16 - 9
    assert point.centre_mm == (2 + 5, 9 - 7, 10.5)


def test_a_reading_of_another_series_is_refused(tmp_path: Path) -> None:
    reading = read_lidc_xml(_xml(tmp_path, _session(_nodule("a", _square(1, 7)))))

    with pytest.raises(ValueError, match="another series"):
        nodules_of(reading, Volume(np.zeros((3, 12, 12), np.float32), _volume().affine))
    (tmp_path / "b.xml").write_text("<other/>")
    with pytest.raises(ValueError, match="not the reading"):
        read_lidc_xml(tmp_path / "b.xml")


def test_what_four_readers_saw_in_lidc_idri_0314() -> None:
    """The figures that a model is judged by: one nodule, four readers, 1.94 ml."""
    reading = read_lidc_xml(DEMO.parent / "lidc_idri_0314_readers.xml")
    files = sorted(DEMO.iterdir())
    lowest = min(
        (pydicom.dcmread(path, stop_before_pixels=True) for path in (files[0], files[-1])),
        key=lambda ds: float(ds.ImagePositionPatient[2]),
    )
    (x, y, z), (dy, dx) = map(float, lowest.ImagePositionPatient), map(float, lowest.PixelSpacing)
    affine = np.array([[0, 0, dx, x], [0, dy, 0, y], [1.0, 0, 0, z], [0, 0, 0, 1]])
    volume = Volume(np.zeros((len(files), 512, 512), np.float32), affine)

    nodules, instances = nodules_of(reading, volume)

    assert reading.series_uid == lowest.SeriesInstanceUID
    assert [round(volume_ml(mark, volume), 3) for mark in reading.marks if mark.is_outlined] == [
        *(1.874, 2.266, 1.519, 2.085),
    ]
    (nodule,) = (nodule for nodule in nodules if not nodule.excluded)
    assert nodule.volume_ml == pytest.approx(1.936, abs=0.001)
    assert nodule.diameter_mm == pytest.approx(15.5, abs=0.1)
    assert nodule.centre_mm == pytest.approx((-57.2, 131.4, -520.4), abs=0.1)
    assert (nodule.attenuation, nodule.margin, nodule.malignancy) == ("solid", "smooth", 3.25)
    assert len(nodules) == 40
    assert (instances > 0).sum() * dx * dy / 1000 == pytest.approx(2.075, abs=0.001)


def _volume(spacing_mm: tuple[float, float, float] = (2.5, 1.0, 1.0)) -> Volume:
    affine = np.diag([0.0, 0, 0, 1])
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    affine[:3, 3] = (5, -7, 3)
    return Volume(np.zeros((6, 12, 12), np.float32), affine)


def _xml(folder: Path, *sessions: str) -> Path:
    path = folder / "reading.xml"
    path.write_text(
        '<LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid>'
        f"</ResponseHeader>{''.join(sessions)}</LidcReadMessage>"
    )
    return path


def _session(*marks: str) -> str:
    return f"<readingSession>{''.join(marks)}</readingSession>"


def _nodule(name: str, *outlines: str, texture: int = 5, malignancy: int = 3) -> str:
    rated = f"<texture>{texture}</texture><malignancy>{malignancy}</malignancy><spiculation>1</spiculation>"
    return (
        f"<unblindedReadNodule><noduleID>{name}</noduleID><characteristics>{rated}</characteristics>"
        f"{''.join(outlines)}</unblindedReadNodule>"
    )


def _square(low: int, high: int, inclusion: str = "TRUE") -> str:
    """Corners alone: readers' outlines leave gaps too."""
    corners = [(low, low), (low, high), (high, high), (high, low)]
    points = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for y, x in corners)
    return f"<roi><imageZposition>10.5</imageZposition><inclusion>{inclusion}</inclusion>{points}</roi>"


def _point(row: int, column: int) -> str:
    return (
        "<nonNodule><nonNoduleID>n</nonNoduleID><imageZposition>10.5</imageZposition>"
        f"<locus><xCoord>{column}</xCoord><yCoord>{row}</yCoord></locus></nonNodule>"
    )
