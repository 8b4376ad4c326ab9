"""How far two images that models made of the same series differ, value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.results.proof import named_by

Planes = Mapping[tuple[str, int], NDArray[np.float32]]  # by the image, and its frame, that each lies on


@dataclass(frozen=True, slots=True)
class Differing:
    """One image in two answers. `correlation` is None where one of them has one value everywhere."""

    label: str
    unit: str
    mean_absolute: float
    largest: float
    correlation: float | None


def differing(first: Sequence[Path], second: Sequence[Path]) -> tuple[Differing, ...]:
    """Compare the images of two answers that have the same label and unit.

    Parameters
    ----------
    first, second : sequence of pathlib.Path
        Parametric maps; those of whole numbers, which are no images, are passed over.
    """
    ours, theirs = _read(first), _read(second)
    same = (key for key in ours if key in theirs and ours[key].keys() & theirs[key].keys())
    return tuple(_compared(*key, ours[key], theirs[key]) for key in same)


def _read(files: Sequence[Path]) -> dict[tuple[str, str], Planes]:
    found: dict[tuple[str, str], Planes] = {}
    for file in files:
        pm = dcmread(file)
        if "FloatPixelData" not in pm:
            continue
        mapping = pm.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        frames = np.frombuffer(pm.FloatPixelData, "<f4").reshape(-1, pm.Rows, pm.Columns)
        derived = [item.DerivationImageSequence[0] for item in pm.PerFrameFunctionalGroupsSequence]
        key = str(mapping.LUTExplanation), str(mapping.MeasurementUnitsCodeSequence[0].CodeMeaning)
        found[key] = {named_by(of.SourceImageSequence[0]): frame for of, frame in zip(derived, frames, strict=True)}
    return found


def _compared(label: str, unit: str, ours: Planes, theirs: Planes) -> Differing:
    voxels, apart, largest = 0, 0.0, 0.0
    sums, products = np.zeros(2), np.zeros((2, 2))
    for key in ours.keys() & theirs.keys():  # plane by plane: all at once would take gigabytes
        pair = np.stack([ours[key].ravel(), theirs[key].ravel()]).astype(np.float64)
        differences = np.abs(pair[1] - pair[0])
        voxels, apart, largest = voxels + pair.shape[1], apart + differences.sum(), max(largest, differences.max())
        sums, products = sums + pair.sum(axis=1), products + pair @ pair.T
    covariance = products / voxels - np.outer(sums, sums) / voxels**2
    spread = float(covariance[0, 0] * covariance[1, 1])
    correlation = float(covariance[0, 1]) / spread**0.5 if spread > 0 else None
    return Differing(label, unit, float(apart / voxels), float(largest), correlation)
