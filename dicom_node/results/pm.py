"""What spoke for the detections, as a parametric map on the grid of the source (PS3.3 A.75)."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results.analysis import Analysis
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    ST_LENGTH,
    as_single,
    complete,
    copy_body_part,
    fit,
    fix_dimension_uid,
    instance_attributes,
    series_description,
    whole_references,
)

_MOST = 255


def build_pm(analysis: Analysis) -> Dataset | None:
    """Write the slices on which anything spoke for a detection.

    Parameters
    ----------
    analysis : Analysis
        Its `saliency` is on the grid of the source, 0 to 255.

    Returns
    -------
    pydicom.Dataset or None
        Stored values 0 to 255, which its Real World Value Mapping makes 0 to 1 of (130404, DCM, "Saliency"). None
        where nothing spoke for anything.
    """
    origin, saliency = analysis.origin, analysis.saliency
    if saliency is None:
        return None
    shown = np.flatnonzero(saliency.any(axis=(1, 2)))
    pm = hd.pm.ParametricMap(
        source_images=as_single([origin.slices[k] for k in shown]),
        pixel_array=saliency[shown].astype(np.uint16),  # Bits Allocated is 16 here (PS3.3 C.8.32.2)
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping()],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=(_MOST + 1) / 2, window_width=_MOST + 1)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="SALIENCY",
        content_description=fit(f"What spoke for the detections {RESEARCH_ONLY}", LO_LENGTH),
        **instance_attributes(origin, "pm", 3, series_description(origin, "saliency")),
    )
    pm.ContentCreatorName = ""
    model = f"{origin.card.name} {origin.algorithm_version}"
    pm.DerivationDescription = fit(f"Saliency of {model}. {origin.statement}", ST_LENGTH)
    copy_body_part(pm, origin)
    fix_dimension_uid(pm, origin.uid("pm/dimensions"))
    _name_frames(pm, [origin.slices[k] for k in shown])
    complete(pm, origin)
    return pm


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


def _mapping() -> hd.pm.RealWorldValueMapping:
    return hd.pm.RealWorldValueMapping(
        lut_label="SALIENCY",
        lut_explanation="0: nothing spoke for a finding; 1: the most that did",
        unit=codes.UCUM.NoUnits,
        value_range=(0, _MOST),
        slope=1 / _MOST,
        intercept=0.0,
        quantity_definition=codes.DCM.Saliency,
    )
