"""Drawn slices as one colour object, each frame where its slice is (PS3.3 A.8.5)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import JPEGLSLossless, MultiFrameTrueColorSecondaryCaptureImageStorage

from dicom_node.results.analysis import Analysis
from dicom_node.results.capture import carry_over
from dicom_node.results.header import Origin, complete, copy_body_part, instance_attributes, plain_object, references


def pictures(
    analysis: Analysis,
    shown: Sequence[int],
    draw: Callable[[int], NDArray[np.uint8]],
    part: str,
    position: int,
    description: str,
    what: str,
) -> Dataset:
    """Write slices as a Multi-frame True Color Secondary Capture image.

    Parameters
    ----------
    shown : sequence of int
        The slices, from 0.
    draw : callable
        Gives the picture of a slice: RGB, of its rows and columns.
    part, position, description
        As `header.instance_attributes` has them.
    what : str
        Derivation Description (0008,2111), at most 1024 characters.

    Returns
    -------
    pydicom.Dataset
        JPEG-LS without loss, less than half of the size; archives and viewers that know no JPEG 2000 read it. Each
        frame lies where the slice lies that it shows; Source Image Sequence (0008,2112) names the slices in the order
        of the frames.
    """
    origin = analysis.origin
    image = begin_pictures(origin, part, position, description, what)
    lay_frames(image, origin, shown)
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        frames = list(threads.map(lambda k: encode_picture(draw(k)), shown))
    complete_pictures(image, origin, analysis.shape[1:], frames)
    return image


def lay_frames(image: Dataset, origin: Origin, shown: Sequence[int]) -> None:
    """Say of each frame which slice of the source it shows, and that it lies there."""
    image.FrameOfReferenceUID = origin.slices[0].FrameOfReferenceUID
    image.PositionReferenceIndicator = origin.slices[0].PositionReferenceIndicator
    image.SharedFunctionalGroupsSequence = [_shared(origin)]
    image.PerFrameFunctionalGroupsSequence = [_per_frame(origin.slices[k]) for k in shown]
    if len(shown) > 1:
        image.FrameIncrementPointer = Tag("PerFrameFunctionalGroupsSequence")
    image.SourceImageSequence = references([origin.slices[k] for k in shown])  # the first of the first frame, and so on
    image.PatientOrientation = ""  # Plane Orientation has it


def begin_pictures(origin: Origin, part: str, position: int, description: str, what: str) -> Dataset:
    """Begin an object of colour pictures; the arguments are those of `pictures`."""
    attributes = instance_attributes(origin, part, position, description)
    image = plain_object(origin, MultiFrameTrueColorSecondaryCaptureImageStorage, "OT", attributes)
    carry_over(image, origin, what)
    return image


def complete_pictures(image: Dataset, origin: Origin, shape: tuple[int, int], frames: Sequence[bytes]) -> None:
    """Put its frames into an object of colour pictures, and what is left to say of them."""
    image.SamplesPerPixel, image.PlanarConfiguration = 3, 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PhotometricInterpretation = "RGB"
    fill_frames(image, origin, shape, frames)


def fill_frames(image: Dataset, origin: Origin, shape: tuple[int, int], frames: Sequence[bytes]) -> None:
    """Put frames that are encoded already into an object."""
    image.NumberOfFrames = len(frames)
    image.Rows, image.Columns = shape
    copy_body_part(image, origin)
    complete(image, origin)
    image.file_meta.TransferSyntaxUID = JPEGLSLossless
    image.PixelData = encapsulate(list(frames))
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True


def encode_picture(rgb: NDArray[np.uint8]) -> bytes:
    """Give a picture in JPEG-LS, without loss."""
    return bytes(imagecodecs.jpegls_encode(rgb, level=0))


def _shared(origin: Origin) -> Dataset:
    first = origin.slices[0]
    measures, orientation, groups = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    measures.SpacingBetweenSlices = first.SpacingBetweenSlices
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    groups.PixelMeasuresSequence, groups.PlaneOrientationSequence = [measures], [orientation]
    return groups


def _per_frame(image: Dataset) -> Dataset:
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = image.ImagePositionPatient
    groups.PlanePositionSequence = [position]
    return groups
