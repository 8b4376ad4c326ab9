"""Results on single images read back from their own bytes: what the model marked, in the image that it saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.contours import Ring, filled
from dicom_node.results.graphics import layer_name
from dicom_node.results.single.analysed import AnalysedImage, Corners, Images
from dicom_node.results.single.gsps import drawings
from dicom_node.results.single.seg import frame_of


def prove_image_seg(data: bytes, told: Images, image: AnalysedImage) -> None:
    """Read a segmentation back.

    Raises
    ------
    ResultError
        If it names another image, has another size, or any pixel differs.
    """
    seg, header = dcmread(BytesIO(data)), told.header(image)
    size = int(seg.Rows) * int(seg.Columns)
    if (seg.Rows, seg.Columns) != (header.Rows, header.Columns):
        raise ResultError(f"the segmentation of {image.name} has another size than the image")
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    for region in image.present:
        number = frame_of(seg, region.segment.number)
        frame = bits[(number - 1) * size : number * size]
        if not np.array_equal(frame, region.mask.ravel()):
            raise ResultError(f"frame {number} of the segmentation of {image.name} differs from what the model marked")
    if int(seg.NumberOfFrames) != len(image.present):
        raise ResultError(f"the segmentation of {image.name} has {seg.NumberOfFrames} frames")
    for item in seg.PerFrameFunctionalGroupsSequence:
        for source in item.DerivationImageSequence[0].SourceImageSequence:
            if source.ReferencedSOPInstanceUID != header.SOPInstanceUID:
                raise ResultError(f"the segmentation of {image.name} names another image")


def prove_image_picture(data: bytes, told: Images, image: AnalysedImage) -> None:
    """Read a drawn image back.

    Raises
    ------
    ResultError
        If it names another image, or has another size.
    """
    drawn, header = dcmread(BytesIO(data), stop_before_pixels=True), told.header(image)
    named = [str(item.ReferencedSOPInstanceUID) for item in drawn.SourceImageSequence]
    if named != [str(header.SOPInstanceUID)]:
        raise ResultError(f"the picture of {image.name} names another image")
    if (drawn.Rows, drawn.Columns, int(drawn.get("NumberOfFrames", 1))) != (header.Rows, header.Columns, 1):
        raise ResultError(f"the picture of {image.name} has another size than the image")


def prove_image_gsps(data: bytes, told: Images, image: AnalysedImage) -> None:
    """Read graphic annotations back.

    Raises
    ------
    ResultError
        If they are drawn on another image, or do not enclose what was marked, pixel by pixel.
    """
    state, header = dcmread(BytesIO(data)), told.header(image)
    shape = int(header.Rows), int(header.Columns)
    meant = {layer_name(segment): _enclosed(lines, shape) for segment, lines in drawings(image)}
    for segment, region in zip((each for each, _ in drawings(image)), image.present, strict=False):
        meant[layer_name(segment)] = region.mask  # the model's own, not what was made of it
    found = {name: np.zeros(shape, np.bool_) for name in meant}
    for annotation in state.GraphicAnnotationSequence:
        for graphic in annotation.get("GraphicObjectSequence", ()):
            named = [str(item.ReferencedSOPInstanceUID) for item in annotation.get("ReferencedImageSequence", ())]
            if named != [str(header.SOPInstanceUID)] or annotation.GraphicLayer not in found:
                raise ResultError(f"the outlines of {image.name} are drawn elsewhere")
            points = np.array(graphic.GraphicData, float).reshape(-1, 2)[:, ::-1] - 0.5
            found[annotation.GraphicLayer] ^= filled(points[:-1], shape)
    for name, mask in meant.items():
        if not np.array_equal(found[name], mask):
            raise ResultError(f"the outline {name} of {image.name} does not enclose what was marked")


def _enclosed(lines: Sequence[Ring], shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    for line in lines:
        mask ^= filled(line, shape)
    return mask


def prove_images_sr(data: bytes, told: Images) -> None:
    """Read a report back.

    Raises
    ------
    ResultError
        If it does not draw each box and each point, and nothing else, in the image that it was found in.
    """
    drawn = [(uid, tuple(points)) for uid, points in _drawn(dcmread(BytesIO(data)))]
    meant = [(str(told.header(image).SOPInstanceUID), corners) for image in told.images for corners in _meant(image)]
    if len(drawn) != len(meant):
        raise ResultError(f"the report draws {len(drawn)} regions where the model drew {len(meant)}")
    for (uid, points), (own, corners) in zip(drawn, meant, strict=True):
        xy = np.array(points).reshape(-1, 2)
        found = (*xy.min(axis=0), *xy.max(axis=0))
        if uid != own or not np.allclose(found, corners, atol=0.01):
            raise ResultError("the report draws a box or a point elsewhere than the model did")


def _meant(image: AnalysedImage) -> Iterator[Corners]:
    """What is drawn in an image, in the order of the report: boxes, then points as boxes of no size."""
    yield from (boxed.corners for boxed in image.boxes)
    yield from ((*marked.at, *marked.at) for marked in image.points)


def _drawn(item: Dataset) -> Iterator[tuple[str, list[float]]]:
    for child in item.get("ContentSequence") or ():
        if child.get("ValueType") == "SCOORD":
            reference = child.ContentSequence[0].ReferencedSOPSequence[0]
            yield str(reference.ReferencedSOPInstanceUID), [float(value) for value in child.GraphicData]
        else:
            yield from _drawn(child)
