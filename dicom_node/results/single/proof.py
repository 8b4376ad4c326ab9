"""Results on single images read back from their own bytes: what the model marked, in the image that it saw."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.single.analysed import AnalysedImage, Images
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


def prove_images_sr(data: bytes, told: Images) -> None:
    """Read a report back.

    Raises
    ------
    ResultError
        If it does not draw each box, and nothing else, in the image that the box was found in.
    """
    drawn = [(uid, tuple(points)) for uid, points in _drawn(dcmread(BytesIO(data)))]
    meant = [(str(told.header(image).SOPInstanceUID), boxed.corners) for image in told.images for boxed in image.boxes]
    if len(drawn) != len(meant):
        raise ResultError(f"the report draws {len(drawn)} regions where the model drew {len(meant)}")
    for (uid, points), (own, corners) in zip(drawn, meant, strict=True):
        xy = np.array(points).reshape(-1, 2)
        found = (*xy.min(axis=0), *xy.max(axis=0))
        if uid != own or not np.allclose(found, corners, atol=0.01):
            raise ResultError("the report draws a box elsewhere than the model did")


def _drawn(item: Dataset) -> Iterator[tuple[str, list[float]]]:
    for child in item.get("ContentSequence") or ():
        if child.get("ValueType") == "SCOORD":
            reference = child.ContentSequence[0].ReferencedSOPSequence[0]
            yield str(reference.ReferencedSOPInstanceUID), [float(value) for value in child.GraphicData]
        else:
            yield from _drawn(child)
