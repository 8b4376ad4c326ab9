"""One single image as the builders of results see it: where it comes from and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.domain.finding import Landmark, Measurement, NotRun, Quality, Segment
from dicom_node.results.header import Origin
from dicom_node.results.words import nothing_found

Place = tuple[float, float]  # column, row; 0.5 is the middle of the first pixel
Corners = tuple[float, float, float, float]  # left, top, right, bottom; 0 is the outer edge of the first pixel


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Something that was outlined: its mask has the rows and columns of the image."""

    segment: Segment
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Boxed:
    """Something that the model drew a box around."""

    segment: Segment
    corners: Corners


@dataclass(frozen=True, slots=True)
class Marked:
    """A point that the model named."""

    landmark: Landmark
    at: Place


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedImage:
    """One image of a series, and what the model said of it.

    Attributes
    ----------
    number : int
        Its place in the series, from 1.
    header : pydicom.Dataset
        Everything but the pixels, as received.
    planes : mapping of str to numpy.ndarray of float32, shape (rows, columns)
        One, or R, G and B.
    window : (float, float) or None
        Center and width, of the values after the Modality LUT, in which a grey image is shown that names none itself.
    spacing : str
        Where the millimetres were measured: ``patient``, ``detector``, or nothing where nobody knows them.
    why_not : str
        Why the model was not run on it; empty when it was.
    """

    number: int
    header: Dataset
    planes: Mapping[str, NDArray[np.float32]]
    spacing: str = ""
    regions: tuple[Region, ...] = ()
    boxes: tuple[Boxed, ...] = ()
    points: tuple[Marked, ...] = ()
    qualities: tuple[Quality, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    left_out: tuple[NotRun, ...] = ()
    why_not: str = ""
    window: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """``Image 2 (R MLO)``: its number, and which side and view it shows."""
        side = str(self.header.get("ImageLaterality") or self.header.get("Laterality") or "")
        told = " ".join(part for part in (side, str(self.header.get("ViewPosition") or "")) if part)
        return f"Image {self.number} ({told})" if told else f"Image {self.number}"

    @property
    def in_words(self) -> str:
        """Its name within a sentence."""
        return f"{self.name[0].lower()}{self.name[1:]}"

    @property
    def present(self) -> tuple[Region, ...]:
        """Regions that mark at least one pixel."""
        return tuple(region for region in self.regions if region.segment.voxels)

    @property
    def marked(self) -> tuple[Segment, ...]:
        """What is outlined or boxed in it."""
        return (*(region.segment for region in self.present), *(boxed.segment for boxed in self.boxes))

    @property
    def pictured(self) -> bool:
        """Whether there is something to be seen in it: what is marked, or a point."""
        return bool(self.marked or self.points)

    @property
    def says_something(self) -> bool:
        """Whether something is marked, or something is said of the image as a whole."""
        return bool(self.pictured or self.qualities or self.measurements)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """All images of a series, and what is told of them alike."""

    origin: Origin
    images: Sequence[AnalysedImage]

    def header(self, image: AnalysedImage) -> Dataset:
        """The header of an image, made fit to be written into a result."""
        return self.origin.slices[image.number - 1]

    @property
    def silence(self) -> str:
        """What there is to say when nothing was found: what was looked for, in how many images."""
        card = self.origin.card
        kinds = (card.segments, card.detections, card.points)
        sought = [each.label.lower() for kind in kinds for each in kind]
        return nothing_found(sought, len(self.images))

    @property
    def lacks(self) -> str:
        """Which images the model was not run on, and why; empty when it was run on all."""
        return "; ".join(f"{image.name} not analysed: {image.why_not}" for image in self.images if image.why_not)
