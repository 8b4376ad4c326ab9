"""One analysis as the builders of results see it: where it comes from, what was found, and the voxels behind both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.domain.encoding import Encoding, encoded
from dicom_node.domain.finding import Findings, Map, NotRun, Segment
from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.header import Origin
from dicom_node.results.source import SourceVolume

Box = tuple[slice, slice, slice]
_LARGEST_KEPT = 2**22  # voxels of a crop that is kept: a nodule is asked for often, a lung is cut out anew


class Registered(Protocol):
    """How a moving series lies on the fixed one; `ai.contract.Registration` is one. All of it is LPS, in mm."""

    @property
    def vectors(self) -> NDArray[np.float32] | None:
        """From points of a grid to where their tissue is, shape (slices, rows, columns, 3); None for a matrix alone."""

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Index (slice, row, column, 1) of `vectors` to the patient."""

    @property
    def matrix(self) -> NDArray[np.float64]:
        """What is applied after the vectors, shape (4, 4)."""


class Marks(Protocol):
    """What a model marked, on the grid of the source; `ai.contract.Prediction` is one."""

    def shape(self, name: str, /) -> tuple[int, ...]:
        """Size of the grid of one output."""

    def box(self, name: str, /) -> Box:
        """Give the smallest box that holds every voxel of one output; of no size when there is none."""

    def within(self, name: str, box: Box, /) -> NDArray[np.bool_]:
        """Voxels of one output in a box of the grid."""

    def probability(self, name: str, /) -> NDArray[np.uint8] | None:
        """How likely each voxel belongs to one output, 0 to 255; None where the model does not say it."""

    @property
    def saliency(self) -> NDArray[np.uint8] | None:
        """What spoke for the detections, shape (slices, rows, columns): 0 nothing, 255 the most."""

    @property
    def images(self) -> Mapping[str, NDArray[np.float32]]:
        """Images that the model answered with, by its names of them, shape (slices, rows, columns)."""

    @property
    def registration(self) -> Registered | None:
        """How the moving series lies on the fixed one; None for a model that does not register."""


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
class Numbered:
    """All segments that are present in one array.

    Attributes
    ----------
    labels : numpy.ndarray of uint8 or uint16, shape (slices, rows, columns)
        The number of the segment that a voxel belongs to; of no size when two segments share one.
    overlap : (str, str), optional
        The first two segments that do.
    """

    labels: NDArray[np.unsignedinteger]
    overlap: tuple[str, str] | None = None


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
    encoding : Encoding
        Of the segmentation among them.
    """

    origin: Origin
    volume: SourceVolume
    findings: Findings
    marks: Marks
    made: tuple[Dataset, ...] = ()
    encoding: Encoding = Encoding.BINARY
    _crops: dict[str, Crop] = field(default_factory=dict, repr=False)
    _numbered: list[Numbered] = field(default_factory=list, repr=False)

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
    def said(self) -> bool:
        """Whether there is a finding: something that was found, or what a model says that looks for nothing."""
        return bool(self.found or self.findings.points) or (
            not self.findings.segments and not self.findings.is_negative
        )

    @property
    def sought(self) -> tuple[str, ...]:
        """Names of what was looked for, e.g. ``nodule``."""
        barred = {part.what for part in self.not_run}
        detected = tuple(each.label.lower() for each in self.origin.card.detections if each.name not in barred)
        points = tuple(point.label.lower() for point in self.origin.card.points)
        return (detected or tuple(segment.label.lower() for segment in self.findings.segments)) + points

    @property
    def saliency(self) -> NDArray[np.uint8] | None:
        """What spoke for the detections, on the grid of the source; None where nothing did."""
        saliency = self.marks.saliency
        return saliency if saliency is not None and saliency.any() else None

    @property
    def pictured(self) -> Map | None:
        """The image that pictures show in place of the source: of a model that answers with one and marks nothing."""
        card = self.origin.card
        marks = card.segments or card.detections or card.points
        return self.findings.maps[0] if self.findings.maps and not marks else None

    @property
    def shown(self) -> NDArray[np.float32]:
        """What pictures show, shape (slices, rows, columns)."""
        return self.image(self.pictured) if self.pictured is not None else self.volume.array

    def image(self, each: Map) -> NDArray[np.float32]:
        """Values of an image that the model answered with, on the grid of the source.

        Raises
        ------
        ResultError
            If it has another grid.
        """
        values = self.marks.images[each.output]
        if values.shape != self.shape:
            raise ResultError(f"{each.output!r} has the grid {values.shape}, its source {self.shape}")
        return values

    def crop(self, output: str) -> Crop:
        """Voxels of one output within their box; all masks of a hundred organs have no room in memory.

        Raises
        ------
        ResultError
            If the model marked another grid than that of the source.
        """
        if output in self._crops:
            return self._crops[output]
        shape = self.marks.shape(output)
        if shape != self.shape:
            raise ResultError(f"{output!r} has the grid {shape}, its source {self.shape}")
        box = self.marks.box(output)
        crop = Crop((box[0].start, box[1].start, box[2].start), self.marks.within(output, box))
        if crop.voxels.size <= _LARGEST_KEPT:
            self._crops[output] = crop
        return crop

    def mask(self, output: str) -> NDArray[np.bool_]:
        """Voxels of one output on the whole grid: bool, shape (slices, rows, columns); of one at a time only."""
        mask, crop = np.zeros(self.shape, np.bool_), self.crop(output)
        mask[crop.box] = crop.voxels
        return mask

    def numbered(self) -> Numbered:
        """Lay all segments that are present into one array, once."""
        if not self._numbered:
            self._numbered.append(self._number())
        return self._numbered[0]

    def _number(self) -> Numbered:
        segments = self.findings.present
        labels = np.zeros(self.shape, np.uint8 if len(segments) < 256 else np.uint16)
        for segment in segments:
            crop = self.crop(segment.output)
            inside = labels[crop.box]
            if shared := int(inside[crop.voxels].max(initial=0)):
                other = next(each for each in segments if each.number == shared)
                return Numbered(np.zeros((0, 0, 0), np.uint8), (other.label, segment.label))
            inside[crop.voxels] = segment.number
        return Numbered(labels)

    def after(self, result: Dataset) -> Analysis:
        """Tell the builders that follow of a result."""
        return replace(self, made=(*self.made, result))

    def encoded(self, encoding: Encoding, seg: Dataset) -> Analysis:
        """Tell the builders that follow of the segmentation in another encoding, in place of the BINARY one."""
        others = [result for result in self.made if result.SOPInstanceUID != self.origin.uid(OutputKind.SEG.value)]
        return replace(self, made=(seg, *others), encoding=encoding)

    def made_of(self, kind: OutputKind) -> Dataset | None:
        """The result of one kind, if it was made before."""
        uid = self.origin.uid(encoded(kind, self.encoding).value)
        return next((result for result in self.made if result.SOPInstanceUID == uid), None)
