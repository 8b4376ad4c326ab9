"""Segmentations and structure sets as masks on the grid of the series that they were drawn on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from skimage.draw import polygon2mask

from ai.contract import Volume

_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
Masks = dict[str, NDArray[np.bool_]]


def structure_masks(structures: Dataset, volume: Volume, wanted: Callable[[str], bool] = lambda _: True) -> Masks:
    """Rasterise the planar contours of an RT Structure Set.

    Contours of one slice are combined by exclusive or, so that a contour inside another cuts a hole
    (PS3.3 C.8.8.6.3, the keyhole-free way that planning systems write them).

    Parameters
    ----------
    structures : pydicom.Dataset
        An RT Structure Set.
    volume : Volume
        The image that the contours were drawn on.
    wanted : callable
        Asked for each ROI Name (3006,0026).

    Returns
    -------
    dict of str to numpy.ndarray of bool, shape (slices, rows, columns)
        By ROI Name; structures without a closed planar contour are left out.

    Raises
    ------
    ValueError
        If a contour lies outside the volume.
    """
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in structures.StructureSetROISequence}
    to_index = np.asarray(np.linalg.inv(volume.affine), dtype=np.float64)
    masks: Masks = {}
    for roi in structures.get("ROIContourSequence", []):
        name = names.get(int(roi.ReferencedROINumber), "")
        contours = [one for one in roi.get("ContourSequence", []) if one.ContourGeometricType == "CLOSED_PLANAR"]
        if contours and wanted(name):
            masks[name] = _filled(contours, to_index, volume.array.shape)
    return masks


def segment_masks(segmentation: FileDataset, volume: Volume) -> Masks:
    """Read the segments of a DICOM Segmentation (binary, fractional, or a label map).

    Parameters
    ----------
    segmentation : pydicom.FileDataset
        Its frames have to lie on the slices of `volume`.
    volume : Volume
        The image that was segmented.

    Returns
    -------
    dict of str to numpy.ndarray of bool, shape (slices, rows, columns)
        By Segment Label (0062,0005); a fractional segment is decided at one half. Empty segments are there too.

    Raises
    ------
    ValueError
        If a frame fits no slice.
    """
    labels = {int(segment.SegmentNumber): str(segment.SegmentLabel) for segment in segmentation.SegmentSequence}
    masks: Masks = {label: np.zeros(volume.array.shape, dtype=np.bool_) for label in labels.values()}
    frames: NDArray[np.uint16] = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    half = float(segmentation.get("MaximumFractionalValue", 1)) / 2
    to_index = np.asarray(np.linalg.inv(volume.affine), dtype=np.float64)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place, straight = _placed(frame, _plane(groups, shared), to_index, volume.array.shape)
        if segmentation.SOPClassUID == _LABELMAP:
            for number, label in labels.items():
                masks[label][place] |= straight == number
        else:
            number = int(_group("SegmentIdentificationSequence", groups, shared).ReferencedSegmentNumber)
            masks[labels[number]][place] |= straight > half
    return masks


def _filled(contours: list[Dataset], to_index: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.bool_)
    for contour in contours:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        plane = round(float(index[:, 0].mean()))
        if np.ptp(index[:, 0]) > 0.5 or not 0 <= plane < shape[0]:
            raise ValueError("A contour does not lie on a slice of the series: it was drawn on another one.")
        mask[plane] ^= polygon2mask(shape[1:], index[:, 1:])  # type: ignore[no-untyped-call]
    return mask


def _plane(groups: Dataset, shared: Dataset) -> NDArray[np.float64]:
    """(row, column, 1) of a frame to LPS mm, as the columns of a 3 × 3 matrix."""
    position = _group("PlanePositionSequence", groups, shared).ImagePositionPatient
    along_columns, along_rows = np.array(
        _group("PlaneOrientationSequence", groups, shared).ImageOrientationPatient, dtype=float
    ).reshape(2, 3)
    between_rows, between_columns = map(float, _group("PixelMeasuresSequence", groups, shared).PixelSpacing)
    return np.stack([along_rows * between_rows, along_columns * between_columns, np.array(position, dtype=float)], 1)


def _placed(
    frame: NDArray[np.uint16], plane: NDArray[np.float64], to_index: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[tuple[int, slice, slice], NDArray[np.uint16]]:
    """Where in the volume a frame lies, and the frame turned so that it fits there."""
    steps, start = to_index[:3, :3] @ plane[:, :2], to_index[:3, :3] @ plane[:, 2] + to_index[:3, 3]
    turns = np.rint(steps)
    exact = np.allclose(steps, turns, atol=0.02) and np.allclose(start, np.rint(start), atol=0.2)
    if not exact or not (np.abs(turns).sum(axis=0) == 1).all() or turns[0].any():
        raise ValueError("A frame of the segmentation lies on no slice of the series: it was made on another grid.")
    straight = frame if turns[1, 0] else frame.T
    low = np.rint(start).astype(int)
    for axis, turn in enumerate(turns[1:].sum(axis=1)):
        if turn < 0:
            straight = np.flip(straight, axis)
            low[1 + axis] -= straight.shape[axis] - 1
    high = low[1:] + straight.shape
    if not 0 <= low[0] < shape[0] or (low[1:] < 0).any() or (high > shape[1:]).any():
        raise ValueError("A frame of the segmentation reaches beyond the series.")
    return (int(low[0]), slice(low[1], high[0]), slice(low[2], high[1])), straight


def _group(name: str, groups: Dataset, shared: Dataset) -> Dataset:
    found = groups if name in groups else shared
    sequence = found.get(name)
    if not sequence:
        raise ValueError(f"The segmentation has no {name}.")
    item: Dataset = sequence[0]
    return item
