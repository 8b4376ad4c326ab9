"""One instance of many frames as the slices it holds: its functional groups laid out as headers of single slices.

An enhanced object says once what its frames share and of each frame what is its own (PS3.3 C.7.6.16). Everything that
asks about a slice asks for the attributes of the older, single-frame objects; here each frame gets such a header.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue

from dicom_node.domain.study import HEADER, Slice, is_multi_frame
from dicom_node.errors import GeometryError

logger = logging.getLogger(__name__)

MOST_FRAMES = 10_000  # each costs a header; the longest real objects have some thousands
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_OLDER = {  # what functional groups call an attribute that single slices have under another name
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "FrameComments": "ImageComments",
}
_NOT_OF_A_FRAME = {_SHARED, _PER_FRAME, "NumberOfFrames", "PixelData", "DimensionIndexSequence"}


class Stored(Protocol):
    """A row of an instance, as far as it is asked for here."""

    @property
    def sop_instance_uid(self) -> str:
        """Its UID."""

    @property
    def path(self) -> str:
        """Where its file is, within the spool."""

    @property
    def header(self) -> Mapping[str, Any]:
        """The attributes named in `domain.study.HEADER`."""


def slices_of(instances: Iterable[Stored], path: Callable[[str], Path]) -> list[Slice]:
    """Give the slices that instances hold, for `domain.study.examine`.

    A single slice is taken as its row has it; of a multi-frame object the functional groups are read from its file. One
    that cannot be read stays whole, and examination refuses it.

    Parameters
    ----------
    path : callable
        Where a file of the spool is, e.g. `Spool.path`.
    """
    slices: list[Slice] = []
    for instance in instances:
        whole = Slice(instance.sop_instance_uid, instance.header)
        slices.extend(_in_file(whole, instance.path, path) if is_multi_frame(instance.header) else [whole])
    return slices


def _in_file(whole: Slice, relative: str, path: Callable[[str], Path]) -> list[Slice]:
    try:
        ds = dcmread(path(relative), stop_before_pixels=True)
        return slices_of_frames(frames_of(ds)) or [whole]
    except Exception as error:  # noqa: BLE001 - whatever a parser says of broken bytes: they place no frame
        logger.warning("instance %s: its frames cannot be read: %s", whole.sop_instance_uid, type(error).__name__)
        return [whole]


def slices_of_frames(frames: Iterable[Dataset]) -> list[Slice]:
    """Give frames as examination sees them."""
    return [Slice(str(frame.SOPInstanceUID), header_of(frame), int(frame.ReferencedFrameNumber)) for frame in frames]


def frames_of(ds: Dataset) -> list[Dataset]:
    """Lay out the functional groups of an object as one header for each frame.

    Parameters
    ----------
    ds : pydicom.Dataset
        A multi-frame object, with or without its pixels.

    Returns
    -------
    list of pydicom.Dataset
        In the order of the frames, without pixels; Referenced Frame Number (0008,1160) counts them from 1. Empty when
        the object has no functional groups.

    Raises
    ------
    GeometryError
        If it has not one item for each of its frames, or too many.
    """
    items = ds.get(_PER_FRAME) or []
    if not items:
        return []
    if len(items) != int(ds.get("NumberOfFrames") or 1) or len(items) > MOST_FRAMES:
        told = f"{ds.get('NumberOfFrames')} frames and {len(items)} items in its Per-Frame Functional Groups Sequence"
        raise GeometryError(f"Instance {ds.get('SOPInstanceUID')} has {told}.")
    shared = Dataset()
    for element in ds:
        if element.keyword not in _NOT_OF_A_FRAME:
            shared.add(element)
    _lay_out(shared, (ds.get(_SHARED) or [Dataset()])[0])
    frames = []
    for number, item in enumerate(items, start=1):
        frame = Dataset()
        frame.update(shared)
        _lay_out(frame, item)
        _name_agent(frame)
        frame.add_new("ReferencedFrameNumber", "IS", number)
        frames.append(frame)
    return frames


def _lay_out(frame: Dataset, groups: Dataset) -> None:
    """Add what functional groups say, under the names that single slices have."""
    for element in _elements(groups):
        keyword = _OLDER.get(element.keyword, element.keyword)
        if keyword == element.keyword:
            frame.add(element)
        else:
            frame.add_new(keyword, dictionary_VR(keyword), element.value)  # assigning would change what frames share


def _elements(groups: Dataset) -> Iterator[Any]:
    for group in groups:
        if group.VR == "SQ" and group.keyword and len(group.value) == 1:
            yield from (element for element in group.value[0] if element.keyword)


def _name_agent(frame: Dataset) -> None:
    """Say in one word what Enhanced Contrast/Bolus says in sequences (PS3.3 C.7.6.4b): what was given, if it was."""
    agents = frame.get("ContrastBolusAgentSequence") or []
    given = frame.get("ContrastBolusAgentAdministered", "YES") != "NO"
    if agents and given and "ContrastBolusAgent" not in frame:
        frame.ContrastBolusAgent = str(agents[0].get("CodeMeaning") or "unnamed")[:64]


def header_of(ds: Dataset, keywords: Iterable[str] = HEADER) -> dict[str, Any]:
    """Read attributes as `domain.study` wants them; a value that cannot be read counts as absent."""
    header = {}
    for keyword in keywords:
        try:
            value = ds.get(keyword)
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            logger.debug("%s of instance %s: %s", keyword, ds.get("SOPInstanceUID"), error)
            continue
        if value is not None:
            header[keyword] = [str(v) for v in value] if isinstance(value, MultiValue) else str(value)
    return header
