"""What is known of a phantom as DICOM: a segmentation and a measurement report, to compare a node's results with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import MeasurementsAndQualitativeEvaluations as Group
from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations as VolumeGroup
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from ai.phantom.anatomy import LEFT, RIGHT
from ai.phantom.nodules import Nodule
from ai.phantom.series import MANUFACTURER, MODEL_NAME, SYNTHETIC, Study

_SCHEME = "99PHANTOM"
_VERSION = "1"
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
_ATTENUATION = {
    "solid": Code("solid", _SCHEME, "Solid"),
    "part-solid": Code("part-solid", _SCHEME, "Part-solid"),
    "ground-glass": Code("112120", "DCM", "Ground glass opacity"),
}
_MARGIN = {"smooth": Code("82280004", "SCT", "Smooth"), "spiculated": Code("112136", "DCM", "Spiculated")}
_COLOURS = {"left": (230, 110, 80), "right": (80, 150, 230)}


def truth_seg(
    slices: Sequence[Dataset],
    study: Study,
    lungs: NDArray[np.uint8],
    instances: NDArray[np.uint8],
    nodules: Sequence[Nodule],
) -> Dataset:
    """Write the truth as a BINARY segmentation: both lungs with what lies in them, and each nodule.

    Parameters
    ----------
    slices : sequence of pydicom.Dataset
        The series, in the order of the label maps' slices.
    study : Study
        What the series was made with.
    lungs : numpy.ndarray of uint8, shape (slices, rows, columns)
        1 left, 2 right.
    instances : numpy.ndarray of uint8, shape (slices, rows, columns)
        n in the n-th nodule.
    nodules : sequence of Nodule
        The truth about each. One that is too small for the grid to show has no segment.

    Returns
    -------
    pydicom.Dataset
    """
    parts: list[tuple[hd.seg.SegmentDescription, NDArray[np.bool_]]] = []
    for side, label in (("left", LEFT), ("right", RIGHT)):
        if (lungs == label).any():
            parts.append((_lung_segment(study, len(parts) + 1, side), lungs == label))
    for number, nodule in enumerate(nodules, start=1):
        if (instances == number).any():
            parts.append((_nodule_segment(study, len(parts) + 1, number, nodule), instances == number))
    seg = hd.seg.Segmentation(
        source_images=list(slices),
        pixel_array=np.stack([mask for _, mask in parts], axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[description for description, _ in parts],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="PHANTOM TRUTH",
        content_description="Synthetic: drawn with the image, not read",
        omit_empty_frames=True,
        **_attributes(study, "seg", 2, "PHANTOM truth SEG (synthetic)"),
    )
    seg.ContentCreatorName = ""  # type 2; nobody drew it
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = study.uid("seg/dimensions")
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = study.uid("seg/dimensions")
    seg.BodyPartExamined = "CHEST"
    return _finished(seg, study, slices[0])


def truth_sr(slices: Sequence[Dataset], study: Study, seg: Dataset, nodules: Sequence[Nodule]) -> Dataset:
    """Write the truth as a Comprehensive 3D SR (PS3.16 TID 1500): one group for each nodule.

    Parameters
    ----------
    slices : sequence of pydicom.Dataset
        The series.
    study : Study
        What it was made with.
    seg : pydicom.Dataset
        The segmentation that the groups point at.
    nodules : sequence of Nodule
        The truth about each; their volumes were measured on a grid finer than the image's.

    Returns
    -------
    pydicom.Dataset
        Preliminary and unverified, like every report that no human has read.
    """
    segments = {str(item.TrackingUID): int(item.SegmentNumber) for item in seg.SegmentSequence}
    groups = [_summary(study, nodules)]
    for number, nodule in enumerate(nodules, start=1):
        groups.append(_nodule_group(study, slices, segments, number, nodule))
    report = hd.sr.MeasurementReport(
        observation_context=_observer(study),
        procedure_reported=[codes.cid100.CTUnspecifiedBodyRegion],
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=[slices[0], slices[-1]],
    )
    sr = hd.sr.Comprehensive3DSR(
        evidence=[*slices, seg],
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        performed_procedure_codes=[],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **_attributes(study, "sr", 3, "PHANTOM truth SR (synthetic)"),
    )
    return _finished(sr, study, slices[0])


def _attributes(study: Study, part: str, number: int, description: str) -> dict[str, Any]:
    time = datetime.strptime(f"{study.date}120000", "%Y%m%d%H%M%S")
    return {
        "series_instance_uid": study.uid(f"{part}/series"),
        "series_number": number,
        "sop_instance_uid": study.uid(part),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": _VERSION,
        "device_serial_number": "1",
        "series_description": description,
        "series_date": time.date(),
        "series_time": time.time(),
        "content_date": time.date(),
        "content_time": time.time(),
        "specific_character_set": "ISO_IR 192",
    }


def _finished(result: Dataset, study: Study, source: Dataset) -> Dataset:
    """Replace what the library takes from the clock, and name the local coding scheme (PS3.3 C.12.1.1.6)."""
    assert isinstance(result, hd.SOPClass)
    result.copy_patient_and_study_information(source)
    result.InstanceCreationDate, result.InstanceCreationTime = result.ContentDate, result.ContentTime
    for item in result.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    used = {str(element.value) for element in result.iterall() if element.keyword == "CodingSchemeDesignator"}
    if _SCHEME in used:
        scheme = Dataset()
        scheme.CodingSchemeDesignator, scheme.CodingSchemeName = _SCHEME, f"Terms of {MODEL_NAME}"
        scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
        result.CodingSchemeIdentificationSequence = [scheme]
    return result


def _lung_segment(study: Study, number: int, side: str) -> hd.seg.SegmentDescription:
    item = _segment(study, number, f"{side.capitalize()} lung", codes.SCT.AnatomicalStructure, codes.SCT.Lung, side)
    item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
        hd.sr.CodedConcept.from_code(_SIDES[side])
    ]
    return item


def _nodule_segment(study: Study, number: int, which: int, nodule: Nodule) -> hd.seg.SegmentDescription:
    category = codes.SCT.MorphologicallyAbnormalStructure
    item = _segment(study, number, f"Nodule {which}", category, codes.SCT.Nodule, nodule.side)
    (region,) = item.AnatomicRegionSequence
    region.AnatomicRegionModifierSequence = [hd.sr.CodedConcept.from_code(_SIDES[nodule.side])]
    return item


def _segment(study: Study, number: int, label: str, category: Code, kind: Code, side: str) -> hd.seg.SegmentDescription:
    is_organ = kind == codes.SCT.Lung
    item = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MODEL_NAME, version=_VERSION, source=MANUFACTURER, family=codes.cid7162.MorphologicalOperations
        ),
        tracking_id=label,
        tracking_uid=study.uid(f"track/{label}"),
        anatomic_regions=None if is_organ else [codes.SCT.Lung],
        display_color=hd.color.CIELabColor.from_rgb(*(_COLOURS[side] if is_organ else (240, 220, 60))),
    )
    item.SegmentDescription = SYNTHETIC
    return item


def _summary(study: Study, nodules: Sequence[Nodule]) -> Group | VolumeGroup:
    """What this report is, in words, for whoever finds it alone."""
    group = Group(
        tracking_identifier=hd.sr.TrackingIdentifier(study.uid("track/summary"), "Truth"),
        finding_sites=[hd.sr.FindingSite(codes.SCT.Lung)],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(Code("origin", _SCHEME, "Origin"), Code("drawn", _SCHEME, "Drawn, not read"))
        ],
    )
    count = len(nodules) or "no"
    text = f"{SYNTHETIC} It holds {count} nodule{'' if len(nodules) == 1 else 's'}. {study.comment}"
    group[0].ContentSequence.append(
        hd.sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type="CONTAINS")
    )
    return group


def _nodule_group(
    study: Study, slices: Sequence[Dataset], segments: dict[str, int], number: int, nodule: Nodule
) -> Group | VolumeGroup:
    label = f"Nodule {number}"
    uid = study.uid(f"track/{label}")
    what: dict[str, Any] = {
        "finding_type": codes.SCT.Nodule,
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
        "finding_sites": [hd.sr.FindingSite(codes.SCT.Lung, laterality=_SIDES[nodule.side])],
        "measurements": _measurements(nodule),
        "qualitative_evaluations": [
            _evaluation("attenuation", "Attenuation of the nodule", _ATTENUATION[nodule.attenuation]),
            _evaluation("margin", "Margin of the nodule", _MARGIN[nodule.margin]),
            _evaluation("place", "Place of the nodule", Code(nodule.place, _SCHEME, nodule.place.capitalize())),
        ],
    }
    tracking = hd.sr.TrackingIdentifier(uid, label)
    if uid not in segments:
        return Group(tracking, **what)
    reference = hd.sr.ReferencedSegment(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=study.uid("seg"),
        segment_number=segments[uid],
        source_series=hd.sr.SourceSeriesForSegmentation(slices[0].SeriesInstanceUID),
    )
    return VolumeGroup(tracking, referenced_segment=reference, **what)


def _measurements(nodule: Nodule) -> list[hd.sr.Measurement]:
    sphere = Code("sphere-diameter", _SCHEME, "Diameter of the sphere of equal volume")
    solid = Code("solid-diameter", _SCHEME, "Diameter of the sphere of the volume of the solid part")
    millimetre, cubic = codes.UCUM.Millimeter, codes.UCUM.CubicMillimeter
    found = [
        hd.sr.Measurement(name=codes.SCT.Volume, value=round(nodule.volume_mm3, 1), unit=cubic),
        hd.sr.Measurement(name=sphere, value=round(nodule.diameter_mm, 2), unit=millimetre),
    ]
    if nodule.attenuation == "part-solid":
        found.append(hd.sr.Measurement(name=solid, value=round(nodule.solid_diameter_mm, 2), unit=millimetre))
    return found


def _evaluation(name: str, meaning: str, value: Code) -> hd.sr.QualitativeEvaluation:
    return hd.sr.QualitativeEvaluation(Code(name, _SCHEME, meaning), value)


def _observer(study: Study) -> hd.sr.ObservationContext:
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=study.uid("device"),
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number="1",
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=attributes
        )
    )
