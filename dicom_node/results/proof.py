"""Spatial results read back from their own bytes, frame by frame, without the library that wrote them.

Each frame is mapped through the frame of reference onto the voxels that were analysed (PS3.3 C.7.6.2.1.1), and has to
hold there exactly what the model said. A result that does not is never sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis, Crop
from dicom_node.results.pm import map_part

# A slice may lie a quarter of a step or of a pixel, or 0.1 mm, from its place on the grid (domain/geometry.py).
VOXELS, MM = 0.3, 0.15
_IMAGING_MEASUREMENTS, _TRACKING_UID = "126010", "112040"
_OWN_PLACE = ("PlaneOrientationSequence", "PixelMeasuresSequence")  # of a frame that is not like the others


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a multi-frame result: its place in the file and in the source, and the segment it shows."""

    index: int
    slice: int
    segment: int = 0


def prove_seg(data: bytes, analysis: Analysis) -> None:
    """Read a BINARY segmentation back.

    Parameters
    ----------
    data : bytes
        The file as it will be stored and sent.
    analysis : Analysis
        What it was built from.

    Raises
    ------
    ResultError
        If a frame does not name the slice that it lies on, lies elsewhere in the patient, or any voxel differs.
    """
    seg = dcmread(BytesIO(data))
    frame_of = {(frame.segment, frame.slice): frame for frame in frames_of(seg, analysis, "segmentation")}
    packed, size = np.frombuffer(seg.PixelData, np.uint8), int(seg.Rows) * int(seg.Columns)
    for segment in analysis.findings.present:
        crop = analysis.crop(segment.output)
        for k, expected in _planes(crop, analysis):
            frame = frame_of.pop((segment.number, k), None)
            if frame is None:
                raise ResultError(f"segment {segment.number} has no frame for slice {named_slice(analysis, k)}")
            if not np.array_equal(_unpack(packed, frame.index * size, size), expected.ravel()):
                raise ResultError(f"frame {frame.index + 1} of the segmentation differs from what the model marked")
    if frame_of:
        raise ResultError(f"{len(frame_of)} frames of the segmentation belong to no segment")


def prove_labelmap(data: bytes, analysis: Analysis) -> None:
    """Read a segmentation as a label map back; as `prove_seg`."""
    seg = dcmread(BytesIO(data))
    found: NDArray[np.uint16] | NDArray[np.uint8] = np.zeros(analysis.shape, f"u{seg.BitsAllocated // 8}")
    for frame, pixels in zip(frames_of(seg, analysis, "label map"), iter_pixels(seg), strict=True):
        found[frame.slice] = pixels
    for segment in analysis.findings.present:
        crop = analysis.crop(segment.output)
        if (found[crop.box][crop.voxels] != segment.number).any():
            raise ResultError(f"segment {segment.number} of the label map differs from what the model marked")
    if np.count_nonzero(found) != sum(segment.voxels for segment in analysis.findings.present):
        raise ResultError("the label map marks voxels that the model did not mark")


def prove_fractional(data: bytes, analysis: Analysis) -> None:
    """Read a segmentation of probabilities back; as `prove_seg`, against what the model said of each voxel."""
    seg = dcmread(BytesIO(data))
    likely = {s.number: analysis.marks.probability(s.output) for s in analysis.findings.present}
    left = {(n, k) for n, array in likely.items() if array is not None for k in np.flatnonzero(array.any(axis=(1, 2)))}
    for frame, pixels in zip(frames_of(seg, analysis, "segmentation"), iter_pixels(seg), strict=True):
        array = likely.get(frame.segment)
        if array is None or not np.array_equal(pixels, array[frame.slice]):
            raise ResultError(f"frame {frame.index + 1} of the segmentation differs from what the model said")
        left.discard((frame.segment, frame.slice))
    if left:
        raise ResultError(f"the segmentation has no frame for {len(left)} slices that the model spoke of")


def prove_pm(data: bytes, analysis: Analysis) -> None:
    """Read a parametric map back; as `prove_seg`, against the saliency or the image that the model gave."""
    pm = dcmread(BytesIO(data))
    frame_of = {frame.slice: frame for frame in frames_of(pm, analysis, "parametric map")}
    said = _said_by_map(pm, analysis)
    stored = pm.get("FloatPixelData")
    pixels = np.frombuffer(stored, "<f4") if stored is not None else pm.pixel_array
    pixels = pixels.reshape(-1, int(pm.Rows), int(pm.Columns))
    for k, expected in enumerate(said):
        frame = frame_of.get(k)
        if frame is None:
            if stored is not None or expected.any():
                raise ResultError(f"the parametric map has no frame for slice {named_slice(analysis, k)}")
        elif not np.array_equal(pixels[frame.index], expected):
            raise ResultError(f"frame {frame.index + 1} of the parametric map differs from what the model said")


def _said_by_map(pm: Dataset, analysis: Analysis) -> NDArray[np.uint8] | NDArray[np.float32]:
    """What a map has to hold, once it is proved to say of its values what the card says."""
    maps = enumerate(analysis.findings.maps, start=1)
    each = next((each for n, each in maps if analysis.origin.uid(map_part(n)) == str(pm.SOPInstanceUID)), None)
    if each is None:
        assert analysis.saliency is not None
        return analysis.saliency
    mapping = pm.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    named = str(quantity.CodeValue), str(mapping.MeasurementUnitsCodeSequence[0].CodeValue)
    whole = float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)
    if named != (each.quantity.value, each.unit.value) or whole != (1.0, 0.0) or "FloatPixelData" not in pm:
        raise ResultError(f"the parametric map does not say that its values are {each.label} in {each.unit.meaning}")
    return analysis.image(each)


def slices_by_name(analysis: Analysis) -> dict[tuple[str, int], int]:
    """Number of each slice by its SOP Instance UID and frame, as `named_by` reads them of a reference."""
    frames = ((header, int(header.get("ReferencedFrameNumber") or 0)) for header in analysis.origin.slices)
    return {(str(header.SOPInstanceUID), frame): k for k, (header, frame) in enumerate(frames)}


def named_by(reference: Dataset) -> tuple[str, int]:
    """Which image a reference names: SOP Instance UID and frame, 0 for an instance as a whole."""
    return str(reference.ReferencedSOPInstanceUID), int(reference.get("ReferencedFrameNumber") or 0)


def measured(sr: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Yield each item of a report's measurement groups (PS3.16 TID 1501), with the finding that it is about."""
    imaging = next(item for item in sr.ContentSequence if concept(item) == _IMAGING_MEASUREMENTS)
    for group in imaging.ContentSequence:
        uid = next(str(item.UID) for item in group.ContentSequence if concept(item) == _TRACKING_UID)
        for item in group.ContentSequence:
            yield uid, item


def concept(item: Dataset) -> str:
    """Code value of the concept that an item of a report is about."""
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def prove_places(data: bytes, analysis: Analysis) -> None:
    """Read drawn slices back: each frame lies where the slice lies that it names. What was drawn, people see."""
    for _ in frames_of(dcmread(BytesIO(data), stop_before_pixels=True), analysis, "picture"):
        pass


def frames_of(result: Dataset, analysis: Analysis, what: str) -> Iterator[Frame]:
    """Yield each frame with the slice that it names, once it is proved to lie there and nowhere else."""
    slice_of = slices_by_name(analysis)
    if str(result.FrameOfReferenceUID) != str(analysis.origin.slices[0].FrameOfReferenceUID):
        raise ResultError(f"the {what} has another frame of reference than its source")
    if len(result.PerFrameFunctionalGroupsSequence) != int(result.NumberOfFrames):
        raise ResultError(f"the {what} does not say of each of its frames where it lies")
    seen: set[tuple[int, int]] = set()
    proved: set[tuple[int, tuple[float, ...]]] = set()
    shared = result.SharedFunctionalGroupsSequence[0]
    for index, item in enumerate(result.PerFrameFunctionalGroupsSequence):
        name = f"frame {index + 1} of the {what}"
        sources = _sources(result, item, index)
        k = slice_of.get(named_by(sources[0])) if sources else None
        frame = Frame(index, -1 if k is None else k, _segment(item, shared))
        if k is None or len(sources) != 1 or (frame.segment, k) in seen:
            raise ResultError(f"{name} does not belong to one slice and segment")
        place = k, tuple(float(x) for x in item.PlanePositionSequence[0].ImagePositionPatient)
        if place not in proved or any(keyword in item for keyword in _OWN_PLACE):
            _prove_place(result, item, shared, analysis, k, name)
            proved.add(place)
        seen.add((frame.segment, k))
        yield frame


def _sources(result: Dataset, item: Dataset, index: int) -> Sequence[Dataset]:
    """What a frame says that it was made of; Secondary Capture has no place for it but the order of its sources."""
    if "DerivationImageSequence" in item:
        named: Sequence[Dataset] = item.DerivationImageSequence[0].SourceImageSequence
        return named
    of_all: Sequence[Dataset] = result.get("SourceImageSequence", ())
    return of_all[index : index + 1]


def _segment(item: Dataset, shared: Dataset) -> int:
    for groups in (item, shared):
        if "SegmentIdentificationSequence" in groups:
            return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return 0


def _prove_place(result: Dataset, item: Dataset, shared: Dataset, analysis: Analysis, k: int, name: str) -> None:
    """Compare three corners of a frame, mapped onto the grid of the source, with those of the slice."""
    position = [float(x) for x in item.PlanePositionSequence[0].ImagePositionPatient]
    if position != [float(x) for x in analysis.origin.slices[k].ImagePositionPatient]:
        raise ResultError(f"{name} is not where slice {named_slice(analysis, k)} is")
    _, rows, columns = analysis.shape
    if (int(result.Rows), int(result.Columns)) != (rows, columns):
        raise ResultError(f"{name} has {result.Rows} x {result.Columns} pixels, its source {rows} x {columns}")
    cosines = np.array(_group(item, shared, "PlaneOrientationSequence").ImageOrientationPatient, float)
    down, across = (float(mm) for mm in _group(item, shared, "PixelMeasuresSequence").PixelSpacing)
    steps = np.array([np.zeros(3), cosines[:3] * across * (columns - 1), cosines[3:] * down * (rows - 1)])
    inverse = np.linalg.inv(analysis.volume.affine)
    found = (np.array(position) + steps) @ inverse[:3, :3].T + inverse[:3, 3]
    expected = np.array([[k, 0, 0], [k, 0, columns - 1], [k, rows - 1, 0]])
    if (np.abs(found - expected) > np.maximum(VOXELS, MM / np.array(analysis.volume.spacing_mm))).any():
        raise ResultError(
            f"{name} does not cover slice {named_slice(analysis, k)}: its corners lie elsewhere in the patient"
        )


def _group(item: Dataset, shared: Dataset, keyword: str) -> Dataset:
    group: Dataset = (item if keyword in item else shared)[keyword].value[0]
    return group


def named_slice(analysis: Analysis, k: int) -> str:
    """SOP Instance UID of a slice, and its frame where it is one of several."""
    header = analysis.origin.slices[k]
    frame = header.get("ReferencedFrameNumber")
    return f"{header.SOPInstanceUID} frame {frame}" if frame else str(header.SOPInstanceUID)


def _planes(crop: Crop, analysis: Analysis) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each slice that has voxels of a crop, with the whole of its plane."""
    _, rows, columns = crop.box
    for n in np.flatnonzero(crop.voxels.any(axis=(1, 2))).tolist():
        plane = np.zeros(analysis.shape[1:], np.bool_)
        plane[rows, columns] = crop.voxels[n]
        yield n + crop.start[0], plane


def _unpack(packed: NDArray[np.uint8], start: int, count: int) -> NDArray[np.bool_]:
    """Take the bits of one frame: frames follow each other unpadded (PS3.5 8.1.1), one may start inside a byte."""
    first = start // 8
    bits = np.unpackbits(packed[first : (start + count + 7) // 8], bitorder="little")
    return bits[start - 8 * first :][:count].astype(np.bool_)
