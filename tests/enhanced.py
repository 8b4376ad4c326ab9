"""A series of single slices as one enhanced multi-frame object, its frames in no order."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage, generate_uid


def as_enhanced(paths: Sequence[Path], target: Path) -> list[int]:
    """Write one Enhanced CT of single slices.

    Returns
    -------
    list of int
        For each frame of it, the number of the slice that it holds, as an index of `paths`.
    """
    slices = [dcmread(path) for path in paths]
    order = [int(k) for k in np.random.default_rng(3).permutation(len(slices))]
    ds = deepcopy(slices[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth"):
        delattr(ds, keyword)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames = len(slices)
    ds.SharedFunctionalGroupsSequence = [_shared(slices[0])]
    ds.PerFrameFunctionalGroupsSequence = [_own(slices[k], k + 1) for k in order]
    ds.PixelData = b"".join(slices[k].PixelData for k in order)
    ds["PixelData"].VR = "OW"
    ds.save_as(target, enforce_file_format=True)
    return order


def _shared(first: Dataset) -> Dataset:
    groups, orientation, measures, values = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "1", "-1024", "HU"
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [measures]
    groups.PixelValueTransformationSequence = [values]
    return groups


def _own(one: Dataset, number: int) -> Dataset:
    groups, position, content = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = one.ImagePositionPatient
    content.StackID, content.InStackPositionNumber, content.FrameAcquisitionNumber = "1", number, 1
    groups.PlanePositionSequence, groups.FrameContentSequence = [position], [content]
    if "EchoTime" in one:
        echo = Dataset()
        echo.EffectiveEchoTime = float(one.EchoTime)
        groups.MREchoSequence = [echo]
    return groups
