"""Study, series and instance: when a series is complete, and whether its instances are one volume."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dicom_node.domain.geometry import (
    Plane,
    check_alike,
    check_possible,
    check_regular,
    check_straight,
    count,
    mm,
    places,
    positions_mm,
    shared_places,
    sorted_along_normal,
    usual_step_mm,
)
from dicom_node.domain.header import numbers, texts
from dicom_node.domain.interleaved import check_numbers
from dicom_node.domain.projection import examine_images, is_single_image
from dicom_node.domain.splitting import split, told_apart
from dicom_node.domain.volumes import PASSING, TELLS_APART, Choice, Part, several, take
from dicom_node.errors import GeometryError, MissingSlices

# Read from every instance at receipt and kept in its row: what routing, completeness and geometry ask for.
# Nothing here names a person but PatientID, without which two patients in one series could not be told apart.
HEADER: tuple[str, ...] = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "RequestedProcedurePriority",
    *TELLS_APART,
    "NumberOfFrames",
    "NumberOfSeriesRelatedInstances",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "GantryDetectorTilt",
)

# What ImageType (0008,0008) calls pictures that travel among the slices without being one.
_PICTURES = {
    "LOCALIZER": "a localizer",
    "SCREEN SAVE": "a screen capture",
    "DOSE_INFO": "a dose report",
    "REF_SURVIEW": "a copy of the localizer",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MULTI_FRAME = re.compile(
    re.escape(_STORAGE) + r"(2\.[12]|4\.[14]|128\.1|130|13\.1\.[123])"
)  # enhanced CT, MR, PET, XA 3D
_NO_IMAGE = {  # what is stored like an image and is none that a model is made for
    "4.2": "a spectrum",
    "66.4": "a segmentation",
    "66.7": "a segmentation",
    "30": "a parametric map",
    "481.2": "a dose distribution",
    "11.1": "a presentation state",
}
_UNTOLD = ", and no attribute tells them apart: repeats with other pixels."
_PLANE = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
}


@dataclass(frozen=True, slots=True)
class Slice:
    """One image of a series as examination sees it: its UID and the attributes named in `HEADER`.

    `frame` counts the frames of a multi-frame object from 1; it is 0 for an instance that is taken as a whole.
    """

    sop_instance_uid: str
    header: Mapping[str, Any]
    frame: int = 0

    @property
    def key(self) -> str:
        """Name it among the others: the UID, and the frame where there are several."""
        return f"{self.sop_instance_uid} frame {self.frame}" if self.frame else self.sop_instance_uid


class Gap(str):
    """A reason why slices are no volume, of a kind of its own: some are missing among them, and may still come."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What examination found.

    Attributes
    ----------
    slices : tuple of str
        SOP Instance UIDs of the slices, ascending along the slice normal; of a refused series as far as they could be
        ordered, otherwise by instance number. A multi-frame object stands once, at its first slice.
    facts : dict
        ``slices`` and ``complete`` always; ``slice_spacing_mm``, ``rows``, ``columns``, ``pixel_spacing_mm``,
        ``from_mm`` and ``to_mm`` where the slices have them; ``frame_of_reference`` when it is one per slice;
        ``volumes`` where there are several, ``volume`` where one of them was chosen.
    set_aside : tuple of (str, str)
        UID and reason of each instance that is no slice.
    refusal : str, optional
        Why the slices are not one volume; None when they are.
    parts : tuple of Part
        The volumes that there are: one, or several with what tells them apart; none of a series that holds no volume.
    twins : tuple of tuple of str
        UIDs of single slices that share a place and differ in nothing that tells volumes apart: copies, if their pixels
        are the same.
    """

    slices: tuple[str, ...]
    facts: dict[str, Any]
    set_aside: tuple[tuple[str, str], ...] = ()
    refusal: str | None = None
    parts: tuple[Part, ...] = ()
    twins: tuple[tuple[str, ...], ...] = ()

    @property
    def lacks_slices(self) -> bool:
        """Whether slices are missing among those that are there."""
        return any(isinstance(one, Gap) for one in (self.refusal, *(part.refusal for part in self.parts)))


def examine(
    instances: Sequence[Slice],
    expected_count: int | None = None,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """Find the slices of a series, order them, and prove that they are one regular volume.

    Never raises: whatever a header holds or lacks ends in a verdict.

    Parameters
    ----------
    instances : sequence of Slice
        Every instance of the series, in any order; of multi-frame objects every frame.
    expected_count : int, optional
        Number of Series Related Instances (0020,1209), where somebody told.
    copies : mapping of str to str
        UIDs of instances that are to be set aside, and why: somebody compared their pixels.
    """
    numbered = sorted(instances, key=_instance_number)
    if holds_single_images(instance.header for instance in instances):
        return Verdict(*examine_images([(one.sop_instance_uid, one.header) for one in numbered], expected_count))
    slices, aside = [], {}
    for instance in numbered:
        if reason := copies.get(instance.sop_instance_uid) or _no_slice(instance.header):
            aside[instance.sop_instance_uid] = reason
        else:
            slices.append(instance)
    set_aside = tuple(aside.items())
    received = len({instance.sop_instance_uid for instance in instances})
    facts: dict[str, Any] = {
        "slices": len(slices),
        "complete": expected_count is None or received >= expected_count,
    }
    parts: Sequence[Part] = ()
    twins: tuple[tuple[str, ...], ...] = ()
    try:
        _check_identity(slices, set_aside)
        slices, planes = _in_order(slices, facts)
        _check_count(received, expected_count)
        parts, refusal = _split(slices, planes, _why_no_volume(slices, planes, facts))
        facts |= {"volumes": [str(part) for part in parts]} if len(parts) > 1 else {}
        twins = _twins(slices, shared_places(planes))
    except GeometryError as error:
        refusal = str(error)
    return Verdict(_uids(slices), facts, set_aside, refusal, tuple(parts), twins)


def chosen(verdict: Verdict, choice: Choice) -> Verdict:
    """Take the volume that a model's card names of those that a series holds.

    Returns
    -------
    Verdict
        On that volume alone; or with the reason why none was taken.
    """
    if not choice or not verdict.parts:
        return verdict
    taken = take(verdict.parts, choice)
    if isinstance(taken, str):
        return replace(verdict, refusal=taken)
    if len(verdict.parts) == 1:
        return verdict
    if taken.refusal:
        return replace(verdict, refusal=f"Of several volumes in one series {taken}: {taken.refusal}")
    facts = {"slices": len(taken.slices), "complete": verdict.facts["complete"], "volume": dict(taken.told)}
    slices, planes = _in_order(taken.slices, facts)
    _check_volume(slices, planes, facts)
    one = replace(taken, slices=tuple(slices))
    return Verdict(_uids(slices), facts, verdict.set_aside, None, (one,))


def _uids(slices: Sequence[Slice]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.sop_instance_uid for s in slices))


def holds_single_images(headers: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the images of a series are no slices, but stand each alone: radiographs, photographs."""
    found = False
    for header in headers:
        if is_single_image(header):
            found = True
        elif not _no_slice(header):
            return False
    return found


def planes_of(slices: Sequence[Slice]) -> list[Plane]:
    """Where each slice lies; each plane bears the key of its slice.

    Raises
    ------
    GeometryError
        Naming the attribute that is missing or malformed, and in how many slices.
    """
    read = {keyword: [numbers(s.header, keyword, n) for s in slices] for keyword, n in _PLANE.items()}
    for keyword, found in read.items():
        if without := found.count(()):
            raise GeometryError(f"{without} of {count(len(slices), 'slice')} without a usable {keyword}.")
    planes = [
        Plane(s.key, position, orientation, spacing, (int(rows[0]), int(columns[0])))
        for s, position, orientation, spacing, rows, columns in zip(slices, *read.values(), strict=True)
    ]
    check_possible(planes)
    return planes


def _no_slice(header: Mapping[str, Any]) -> str | None:
    """Why an instance is no slice of a volume; None when it may be one."""
    sop_class = "".join(texts(header, "SOPClassUID")[:1])
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + "."):
        return "a secondary capture"
    if kind := _NO_IMAGE.get(sop_class.removeprefix(_STORAGE)):
        return kind
    for word in texts(header, "ImageType"):
        if word.upper() in _PICTURES:
            return f"{_PICTURES[word.upper()]} (ImageType {word.upper()})"
    if not texts(header, "Rows") and not texts(header, "Columns") and not _MULTI_FRAME.fullmatch(sop_class):
        return f"no image (Modality {'/'.join(texts(header, 'Modality')) or 'unknown'})"
    if numbers(header, "SamplesPerPixel", 1) not in ((), (1.0,)):
        return "a colour picture"
    if texts(header, "PhotometricInterpretation") == ("PALETTE COLOR",):
        return "a picture whose stored values are numbers of colours (PALETTE COLOR)"
    return None


def _check_identity(slices: Sequence[Slice], set_aside: Sequence[tuple[str, str]]) -> None:
    if not slices:
        kinds = ", ".join(sorted({reason for _, reason in set_aside}))
        raise GeometryError(f"No slices: {count(len(set_aside), 'instance')}, each set aside ({kinds or 'none came'}).")
    for keyword, what in (("StudyInstanceUID", "studies"), ("PatientID", "patients"), ("SOPClassUID", "SOP classes")):
        different = {texts(s.header, keyword) for s in slices}
        if len(different) > 1:
            raise GeometryError(f"The slices belong to {len(different)} {what}, by their {keyword}.")
    whole = sum(not s.frame and is_multi_frame(s.header) for s in slices)
    if whole:
        raise GeometryError(f"{count(whole, 'multi-frame object')} with no functional groups to say where frames lie.")


def _in_order(slices: Sequence[Slice], facts: dict[str, Any]) -> tuple[list[Slice], list[Plane]]:
    planes = sorted_along_normal(planes_of(slices))
    by_key = {s.key: s for s in slices}
    at_mm, step = positions_mm(planes), usual_step_mm(planes)
    facts |= {
        "rows": planes[0].size[0],
        "columns": planes[0].size[1],
        "pixel_spacing_mm": list(planes[0].spacing_mm),
        "from_mm": round(at_mm[0], 4),
        "to_mm": round(at_mm[-1], 4),
    }
    if step is not None:
        facts["slice_spacing_mm"] = round(step, 4)
    return [by_key[plane.uid] for plane in planes], planes


def _check_count(received: int, expected: int | None) -> None:
    if expected is not None and received < expected:
        raise GeometryError(f"{received} of {count(expected, 'instance')} arrived.")


def _why_no_volume(slices: Sequence[Slice], planes: Sequence[Plane], facts: dict[str, Any]) -> str | None:
    try:
        _check_volume(slices, planes, facts)
    except MissingSlices as error:
        return Gap(error)
    except GeometryError as error:
        return str(error)
    return None


def _check_volume(slices: Sequence[Slice], planes: Sequence[Plane], facts: dict[str, Any]) -> None:
    check_alike(planes)
    _check_frames(slices, facts)
    _check_places(planes)
    check_straight(planes, _tilt(slices[0].header))
    facts["slice_spacing_mm"] = round(check_regular(planes), 4)
    check_numbers(slices)
    _check_brightness(slices)
    unplaced = sum(not texts(s.header, "FrameOfReferenceUID") for s in slices)
    if unplaced:  # a segmentation has to name the frame of reference of its source (PS3.3 A.51)
        raise GeometryError(f"{unplaced} of {count(len(slices), 'slice')} without a FrameOfReferenceUID.")


def _check_frames(slices: Sequence[Slice], facts: dict[str, Any]) -> None:
    """One frame of reference, or one for each slice: old de-identified collections replaced them one by one."""
    frames = {texts(s.header, "FrameOfReferenceUID") for s in slices} - {()}
    if len(frames) == len(slices) > 2:
        facts["frame_of_reference"] = "one per slice"
    elif len(frames) > 1:
        told = f"{count(len(slices), 'slice')} in {len(frames)} frames of reference"
        raise GeometryError(f"{told}, by FrameOfReferenceUID.")


def _check_brightness(slices: Sequence[Slice]) -> None:
    """Refuse MR whose lowest value is white: only with a unit does a value say what it is, however it is shown."""
    inverted = sum(texts(s.header, "PhotometricInterpretation") == ("MONOCHROME1",) for s in slices)
    if inverted and texts(slices[0].header, "Modality") == ("MR",):
        told = f"{inverted} of {count(len(slices), 'slice')} of MR are inverted"
        raise GeometryError(f"{told} (MONOCHROME1): their lowest value is white.")


def _check_places(planes: Sequence[Plane]) -> None:
    if groups := shared_places(planes):
        place = mm(positions_mm(planes)[planes.index(groups[0][0])])
        told = f"{count(len(groups), 'place')} with more than one slice"
        most = max(map(len, groups))
        raise GeometryError(f"Several volumes in one series: {told} (up to {most}; the first at {place}){_UNTOLD}")


def _split(slices: Sequence[Slice], planes: Sequence[Plane], refusal: str | None) -> tuple[Sequence[Part], str | None]:
    """Split slices that share places, or lie between each other, into volumes; what to say of it."""
    plane_of = {plane.uid: plane for plane in planes}
    at_mm = dict(zip(plane_of, positions_mm(planes), strict=True))
    place_mm = {plane.uid: at_mm[group[0].uid] for group in places(planes) for plane in group}

    def why(some: Sequence[Slice]) -> str | None:
        ordered = sorted_along_normal([plane_of[one.key] for one in some])
        by_key = {one.key: one for one in some}
        return _why_no_volume([by_key[plane.uid] for plane in ordered], ordered, {})

    parts = split(Part((), tuple(slices), refusal), place_mm, why)
    if len(parts) == 1 and refusal is None:
        return parts, None
    ours = next((part for part in parts if part.told and part.refusal is None), None)
    if ours is not None:
        return parts, f"{several(parts)} [volume] on the model's card takes one, as {ours.to_choose()}."
    if refusal is not None and _UNTOLD in refusal:
        refusal = refusal.replace(_UNTOLD, f", {told_apart(slices, place_mm, why) or _UNTOLD[2:]}")
    return (), refusal


def _twins(slices: Sequence[Slice], groups: Sequence[Sequence[Plane]]) -> tuple[tuple[str, ...], ...]:
    """Slices of one place that no attribute tells apart, but when they were made, by instance number."""
    found: dict[tuple[Any, ...], list[Slice]] = {}
    place_of = {plane.uid: n for n, group in enumerate(groups) for plane in group}
    for one in sorted(slices, key=_instance_number):
        if one.key in place_of and not one.frame:
            alike = tuple(texts(one.header, keyword) for keyword in TELLS_APART if keyword not in PASSING)
            found.setdefault((place_of[one.key], alike), []).append(one)
    return tuple(tuple(one.sop_instance_uid for one in some) for some in found.values() if len(some) > 1)


def is_multi_frame(header: Mapping[str, Any]) -> bool:
    """Whether an instance holds slices as frames, by its SOP class or by their number."""
    frames = numbers(header, "NumberOfFrames", 1)
    if not (frames and frames[0] > 1) and not any(map(_MULTI_FRAME.fullmatch, texts(header, "SOPClassUID"))):
        return False
    return not _no_slice(header) and not is_single_image(header)


def _tilt(header: Mapping[str, Any]) -> float | None:
    """Read the tilt; None for a reformatted image, where it describes the scan and not the slices."""
    tilt = numbers(header, "GantryDetectorTilt", 1)
    derived = "DERIVED" in (word.upper() for word in texts(header, "ImageType"))
    return tilt[0] if tilt and not derived else None


def _instance_number(instance: Slice) -> tuple[float, str]:
    number = numbers(instance.header, "InstanceNumber", 1)
    return (number[0] if number else math.inf, instance.sop_instance_uid)
