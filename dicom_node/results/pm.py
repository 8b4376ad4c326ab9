"""Values for every voxel on the grid of the source, as parametric maps (PS3.3 A.75).

What spoke for detections is stored as whole numbers that a mapping makes shares of 1. An image that the model answered
with is stored as it is: float32, in the unit of the card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain.finding import Map
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    SH_LENGTH,
    ST_LENGTH,
    Origin,
    as_single,
    code,
    complete,
    content_label,
    copy_body_part,
    fit,
    fix_dimension_uid,
    instance_attributes,
    series_description,
    whole_references,
)

_MOST = 255
_FIRST_MAP = 20  # of the numbers of series


def build_pm(analysis: Analysis) -> list[Dataset]:
    """Write what spoke for detections, on the slices on which anything did, and each image that the model gave.

    Parameters
    ----------
    analysis : Analysis
        Its `saliency` is on the grid of the source, 0 to 255.

    Returns
    -------
    list of pydicom.Dataset
        Of the saliency stored values 0 to 255, which its Real World Value Mapping makes 0 to 1 of (130404, DCM,
        "Saliency"). Of an image float32 on every slice, in the quantity and unit of the card. Empty where there is
        neither.
    """
    return [_written(analysis, each) for each in (*_saliency(analysis), *_images(analysis))]


def map_part(number: int) -> str:
    """Part of the results that an image of the model is, counted from 1: its UID derives from it."""
    return f"pm/{number}"


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """What goes into one map: `what` is a word for it, `of` which slices of the source it has."""

    part: str
    position: int
    label: str
    what: str
    described: str
    array: NDArray[np.uint16] | NDArray[np.float32]
    of: Sequence[int]
    mapping: hd.pm.RealWorldValueMapping
    window: tuple[float, float]
    function: str  # LINEAR takes no window narrower than 1 (PS3.3 C.11.2.1.2)
    shows_the_patient: bool
    derivation: PydicomCode | None = None


def _saliency(analysis: Analysis) -> Iterator[_Values]:
    saliency = analysis.saliency
    if saliency is None:
        return
    of = np.flatnonzero(saliency.any(axis=(1, 2))).tolist()
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="SALIENCY",
        lut_explanation="0: nothing spoke for a finding; 1: the most that did",
        unit=codes.UCUM.NoUnits,
        value_range=(0, _MOST),
        slope=1 / _MOST,
        intercept=0.0,
        quantity_definition=codes.DCM.Saliency,
    )
    array = saliency[of].astype(np.uint16)  # Bits Allocated is 16 here (PS3.3 C.8.32.2)
    window = (_MOST + 1) / 2, _MOST + 1.0
    said = "What spoke for the detections"
    yield _Values("pm", 3, "SALIENCY", "saliency", said, array, of, mapping, window, "LINEAR", shows_the_patient=False)


def _images(analysis: Analysis) -> Iterator[_Values]:
    for number, each in enumerate(analysis.findings.maps, start=1):
        array = analysis.image(each)
        yield _Values(
            map_part(number),
            _FIRST_MAP + number,
            content_label(analysis.origin),
            fit(each.label, LO_LENGTH // 2),
            fit(each.label, LO_LENGTH - len(RESEARCH_ONLY) - 1),
            array,
            range(len(array)),
            _as_it_is(each, array),
            each.window,
            "LINEAR_EXACT",
            shows_the_patient=True,
            derivation=code(each.derivation) if each.derivation else None,
        )


def _as_it_is(each: Map, array: NDArray[np.float32]) -> hd.pm.RealWorldValueMapping:
    return hd.pm.RealWorldValueMapping(
        lut_label=fit(each.label, SH_LENGTH),
        lut_explanation=fit(each.label, LO_LENGTH),
        unit=code(each.unit),
        value_range=(float(array.min()), float(array.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=code(each.quantity),
    )


def _written(analysis: Analysis, each: _Values) -> Dataset:
    origin = analysis.origin
    shown = [origin.slices[k] for k in each.of]
    pm = hd.pm.ParametricMap(
        source_images=as_single(shown),
        pixel_array=each.array,
        contains_recognizable_visual_features=each.shows_the_patient,
        real_world_value_mappings=[each.mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(*each.window, voi_lut_function=each.function)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=each.label,
        content_description=f"{each.described} {RESEARCH_ONLY}",
        derivation=each.derivation,
        **instance_attributes(origin, each.part, each.position, series_description(origin, each.what)),
    )
    pm.ContentCreatorName = ""
    pm.DerivationDescription = fit(f"{each.what.capitalize()} of {_model(origin)}. {origin.statement}", ST_LENGTH)
    copy_body_part(pm, origin)
    fix_dimension_uid(pm, origin.uid(f"{each.part}/dimensions"))
    _name_frames(pm, shown)
    complete(pm, origin)
    return pm


def _model(origin: Origin) -> str:
    return f"{origin.card.name} {origin.algorithm_version}"


def _name_frames(pm: Dataset, shown: Sequence[Dataset]) -> None:
    """Name the frames of a multi-frame source, each by its place: highdicom was told of single slices."""
    if "ReferencedFrameNumber" not in shown[0]:
        return
    at = {tuple(map(float, image.ImagePositionPatient)): image for image in shown}
    for item in pm.PerFrameFunctionalGroupsSequence:
        image = at[tuple(map(float, item.PlanePositionSequence[0].ImagePositionPatient))]
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPClassUID, source.ReferencedFrameNumber = image.SOPClassUID, image.ReferencedFrameNumber
    pm.ReferencedSeriesSequence[0].ReferencedInstanceSequence = whole_references(shown)
