"""One analysis as the builders of results see it: where it comes from, what was found, and the voxels behind both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.domain.finding import Findings, NotRun, Segment
from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.header import Origin
from dicom_node.results.source import SourceVolume


class Marks(Protocol):
    """What a model marked, on the grid of the source; `ai.contract.Prediction` is one."""

    def mask(self, name: str, /) -> NDArray[np.bool_]:
        """Voxels of one output, shape (slices, rows, columns)."""

    @property
    def saliency(self) -> NDArray[np.uint8] | None:
        """What spoke for the detections, shape (slices, rows, columns): 0 nothing, 255 the most."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """The smallest box that holds a mask.

    Attributes
    ----------
    start : (int, int, int)
        Slice, row and column of the box's first voxel.
    voxels : numpy.ndarray of bool
        The mask within the box; of no size when nothing is marked.
    """

    start: tuple[int, int, int]
    voxels: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Crop:
        """Cut the box out of a mask of the whole grid."""
        slices = np.flatnonzero(mask.any(axis=(1, 2)))
        if not slices.size:
            return cls((0, 0, 0), np.zeros((0, 0, 0), np.bool_))
        slab = mask[slices[0] : slices[-1] + 1]
        plane = np.asarray(np.any(slab, axis=0), np.bool_)
        rows, columns = np.flatnonzero(np.any(plane, axis=1)), np.flatnonzero(np.any(plane, axis=0))
        box = slab[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        return cls((int(slices[0]), int(rows[0]), int(columns[0])), box)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where it lies in the whole grid."""
        k, j, i = self.start
        deep, high, wide = self.voxels.shape
        return slice(k, k + deep), slice(j, j + high), slice(i, i + wide)

    def window(self, low: NDArray[np.int_], high: NDArray[np.int_]) -> NDArray[np.bool_]:
        """Cut the mask out of any box of the grid, from index `low` up to but without `high`."""
        out = np.zeros(tuple(high - low), np.bool_)
        start, end = np.array(self.start), np.array(self.start) + self.voxels.shape
        a, b = np.maximum(low, start), np.minimum(high, end)
        if (a < b).all():
            inside = tuple(slice(x, y) for x, y in zip(a - low, b - low, strict=True))
            out[inside] = self.voxels[tuple(slice(x, y) for x, y in zip(a - start, b - start, strict=True))]
        return out

    @property
    def center(self) -> NDArray[np.float64]:
        """Index (slice, row, column) of the mask's centre of mass, as a fraction of voxels."""
        return np.asarray(np.argwhere(self.voxels).mean(axis=0) + self.start, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything that a result is made of, and the results that were made before it.

    Attributes
    ----------
    origin : Origin
        The job, the model and the headers of the source.
    volume : SourceVolume
        The voxels that were analysed, and where they lie.
    findings : Findings
        What was found, in codes and numbers.
    made : tuple of pydicom.Dataset
        Results of the same job that came before, so that a later one can refer to them.
    """

    origin: Origin
    volume: SourceVolume
    findings: Findings
    marks: Marks
    made: tuple[Dataset, ...] = ()
    _crops: dict[str, Crop] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns of the source."""
        first = self.origin.slices[0]
        return len(self.origin.slices), int(first.Rows), int(first.Columns)

    @property
    def not_run(self) -> tuple[NotRun, ...]:
        """Whole parts of the model that were not run; what was only left out of an answer is not among them."""
        return tuple(part for part in self.findings.not_run if part.is_part)

    @property
    def lacks(self) -> str:
        """What was not run and why; empty when all was."""
        return "; ".join(part.text for part in self.not_run)

    @property
    def found(self) -> tuple[Segment, ...]:
        """What was looked for and found: what was detected, where detection ran, else all that was marked."""
        barred = {part.what for part in self.not_run}
        detects = any(detection.name not in barred for detection in self.origin.card.detections)
        return tuple(segment for segment in self.findings.present if segment.score is not None or not detects)

    @property
    def sought(self) -> tuple[str, ...]:
        """Names of what was looked for, e.g. ``nodule``."""
        barred = {part.what for part in self.not_run}
        detected = tuple(each.label.lower() for each in self.origin.card.detections if each.name not in barred)
        return detected or tuple(segment.label.lower() for segment in self.findings.segments)

    @property
    def saliency(self) -> NDArray[np.uint8] | None:
        """What spoke for the detections, on the grid of the source; None where nothing did."""
        saliency = self.marks.saliency
        return saliency if saliency is not None and saliency.any() else None

    def crop(self, output: str) -> Crop:
        """Voxels of one output within their box: a nodule is asked for often and is small."""
        if output not in self._crops:
            self._crops[output] = Crop.of(self.mask(output))
        return self._crops[output]

    def mask(self, output: str) -> NDArray[np.bool_]:
        """Voxels of one output: bool, shape (slices, rows, columns).

        Raises
        ------
        ResultError
            If the model marked another grid than that of the source.
        """
        mask = self.marks.mask(output)
        if mask.shape != self.shape:
            raise ResultError(f"{output!r} has the grid {mask.shape}, its source {self.shape}")
        return mask

    def after(self, result: Dataset) -> Analysis:
        """Tell the builders that follow of a result."""
        return replace(self, made=(*self.made, result))

    def made_of(self, kind: OutputKind) -> Dataset | None:
        """The result of one kind, if it was made before."""
        uid = self.origin.uid(kind.value)
        return next((result for result in self.made if result.SOPInstanceUID == uid), None)
