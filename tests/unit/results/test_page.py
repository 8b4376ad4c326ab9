"""The overview page: one picture that says what was found, of what, by whom, and that it is no diagnosis."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.results.analysis import Analysis
from dicom_node.results.capture import png
from dicom_node.results.header import Origin
from dicom_node.results.page import draw_page
from dicom_node.results.planes import AXIAL, CORONAL, SAGITTAL, Raster, covered
from dicom_node.results.sheet import AMBER, MUTED, font, pair, paragraph, plain
from dicom_node.results.words import NOT_FOR_DIAGNOSIS
from dicom_node.spool import Spool
from tests.unit.results.case import (
    ALL,
    CARD,
    EQUIPMENT,
    Case,
    Masks,
    boxes,
    build,
    built_of,
    card_with,
    make_case,
    nodules,
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("ct"))


def holds(page: NDArray[np.uint8], text: str, size: int, color: tuple[int, int, int]) -> bool:
    """Whether a line of text stands in the picture, pixel for pixel."""
    line = np.asarray(paragraph(text, int(font(size).getlength(text)) + 1, size, color))
    height, width, _ = line.shape
    ink = np.argwhere((line != line[0, 0]).any(axis=-1))
    spots = np.argwhere((page == line[tuple(ink[0])]).all(axis=-1)) - ink[0]
    inside = ((spots >= 0) & (spots + np.array((height, width)) <= page.shape[:2])).all(axis=1)
    return any(np.array_equal(page[y : y + height, x : x + width], line) for y, x in spots[inside])


def test_the_page_is_a_capture_that_says_in_its_pixels_that_it_is_no_diagnosis(case: Case, spool: Spool) -> None:
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, card_with(outputs=ALL))
    sc = built.sc
    assert sc.SOPClassUID == SecondaryCaptureImageStorage
    assert (sc.BurnedInAnnotation, sc.PhotometricInterpretation, sc.ConversionType) == ("YES", "RGB", "WSD")
    assert sc.SeriesDescription == "AI overview: Lung segmentation (research only)"
    named = [item.ReferencedSOPInstanceUID for item in sc.SourceImageSequence]
    assert named == [ds.SOPInstanceUID for ds in case.volume.datasets]
    page = sc.pixel_array
    assert holds(page, NOT_FOR_DIAGNOSIS, 20, AMBER)
    for segment in findings.present:
        assert (page == segment.color_rgb).all(axis=-1).sum() > 100, segment.label
    assert np.array_equal(np.asarray(Image.open(BytesIO(png(built.files["sc"])))), page)


def test_nothing_found_is_said_on_the_page(case: Case, spool: Spool) -> None:
    page = build(case, boxes(case), spool, card_with(outputs=ALL)).sc.pixel_array
    assert holds(page, "Nothing was found in 20 images: no left lung, no right lung.", 18, (226, 229, 233))
    assert not (page == CARD.segments[0].color_rgb).all(axis=-1).any()


def test_many_findings_stay_on_one_page(case: Case) -> None:
    prediction, findings = nodules(case)
    more = replace(findings, segments=(*findings.segments, *findings.segments[2:] * 5))
    origin = Origin.of(case.job, CARD, case.volume, EQUIPMENT)
    few, many = (draw_page(Analysis(origin, case.volume, each, prediction)) for each in (findings, more))
    assert few.shape[1] == many.shape[1] == 1600
    assert len(few) < len(many) < 2000
    assert holds(
        many, "5 Nodule 1, left lung: Long axis 8.4 mm, Short axis 6.1 mm, Volume 810 mm3, Mean", 14, (226, 229, 233)
    )


@pytest.mark.parametrize("view", [AXIAL, CORONAL, SAGITTAL], ids=lambda view: view.name)
def test_a_mask_is_drawn_where_it_lies_in_the_patient_however_the_source_was_cut(view: object, tmp_path: Path) -> None:
    assert isinstance(view, type(AXIAL))
    drawn = []
    for name, options in {
        "axial": {"origin_mm": (-30.0, -20.0, -10.0)},
        "coronal, from behind": {"cosines": (1, 0, 0, 0, 0, -1), "origin_mm": (-40.0, -30.0, 50.0)},
    }.items():
        case = make_case(tmp_path / name, spacing_mm=(1.0, 1.0, 1.0), slices=50, **options)  # type: ignore[arg-type]
        k, j, i = np.indices(case.volume.array.shape)
        affine = case.volume.affine
        x, y, z = (affine[r, 0] * k + affine[r, 1] * j + affine[r, 2] * i + affine[r, 3] for r in range(3))
        mask = (np.abs(x - 4) <= 8) & (np.abs(y - 2) <= 5) & (np.abs(z - 10) <= 3)
        analysis = Analysis(
            Origin.of(case.job, CARD, case.volume, EQUIPMENT),
            case.volume,
            nodules(make_case(tmp_path / f"{name} 2"))[1],
            Masks({"thing": mask}),
        )
        raster = Raster(view, np.array([0.0, 2.0, 10.0]), (61, 61), 1.0)
        drawn.append(covered(analysis.crop("thing"), raster.indices(affine)))
    assert np.array_equal(drawn[0], drawn[1])
    rows, columns = np.nonzero(drawn[0])
    across, down = {"Axial": ((-4, 12), (-5, 5)), "Coronal": ((-4, 12), (-3, 3)), "Sagittal": ((-5, 5), (-3, 3))}[
        view.name
    ]
    assert (columns.min() - 30, columns.max() - 30) == across
    assert (rows.min() - 30, rows.max() - 30) == down


def test_a_name_that_does_not_fit_beside_its_value_goes_on_below() -> None:
    block = np.asarray(pair("15th percentile attenuation coefficient", "-900 HU", 268))
    assert holds(block, "15th percentile attenuation", 15, MUTED)
    assert holds(block, "coefficient", 15, MUTED)


def test_text_is_spelled_in_the_letters_that_the_font_has() -> None:
    assert plain("Größe ≥ 8 mm … Übersicht") == "Grosse >= 8 mm ... Ubersicht"
