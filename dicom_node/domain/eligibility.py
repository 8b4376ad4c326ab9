"""Whether a model, or a part of it, was made for a volume: what its card accepts against what the volume is.

What we measure ourselves (slices, spacing, field of view, coverage) always decides. What only the header can say
decides when the header says it: without a slice thickness or a kernel a limit on them refuses, because the images may
be anything; without an age they are accepted, because collections without names have none. No contrast agent in the
header means none was given (PS3.3 C.7.6.4: the module is required when one was).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dicom_node.domain.geometry import count
from dicom_node.domain.header import numbers, texts
from dicom_node.domain.person import age_years

_NO_AGENT = frozenset({"", "NO", "NONE", "N", "0", "-", "NA", "N/A", "WITHOUT", "NO CONTRAST", "NATIVE", "UNENHANCED"})


class Contrast(StrEnum):
    """What a model wants of a contrast agent."""

    ANY = "any"
    WITH = "with"
    WITHOUT = "without"


@dataclass(frozen=True, slots=True)
class Accepts:
    """Which volumes a model, or a part of it, was made for; anything else is refused before inference.

    Attributes
    ----------
    modality : tuple of str
        Modality (0008,0060); empty is any.
    max_slice_spacing_mm, max_slice_thickness_mm : float, optional
        Distance between slices, measured from their positions; thickness of each, from the header.
    min_pixel_spacing_mm, max_pixel_spacing_mm : float, optional
        Between rows and between columns.
    min_field_of_view_mm, max_field_of_view_mm : float, optional
        Width and height of a slice.
    min_coverage_mm : float, optional
        How much of the patient the volume spans, head to feet.
    kernels, refused_kernels : tuple of str
        Regular expressions searched for in Convolution Kernel (0018,1210); one of the first has to be found where
        there are any, none of the second may be.
    min_age_years, max_age_years : float, optional
        Age at the scan.
    views : tuple of str
        View Position (0018,5101) of single images: PA, AP, CC, MLO; empty is any.
    """

    modality: tuple[str, ...] = ()
    min_slices: int = 1
    max_slice_spacing_mm: float | None = None
    max_slice_thickness_mm: float | None = None
    min_pixel_spacing_mm: float | None = None
    max_pixel_spacing_mm: float | None = None
    min_field_of_view_mm: float | None = None
    max_field_of_view_mm: float | None = None
    min_coverage_mm: float | None = None
    kernels: tuple[str, ...] = ()
    refused_kernels: tuple[str, ...] = ()
    contrast: Contrast = Contrast.ANY
    min_age_years: float | None = None
    max_age_years: float | None = None
    views: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """What a volume is. What the header does not say is None.

    Attributes
    ----------
    pixel_spacing_mm, field_of_view_mm : (float, float)
        Along a column, along a row.
    coverage_mm : float
        Extent head to feet, half a voxel beyond the outermost centres.
    kernel : str, optional
        Convolution Kernel, its values joined by a backslash.
    """

    modality: str
    slices: int
    slice_spacing_mm: float
    pixel_spacing_mm: tuple[float, float]
    field_of_view_mm: tuple[float, float]
    coverage_mm: float
    slice_thickness_mm: float | None = None
    kernel: str | None = None
    contrast_agent: bool = False
    age_years: float | None = None
    view: str | None = None


def scan_of(
    header: Mapping[str, Any],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    head_feet_mm: tuple[float, float, float],
) -> Scan:
    """Describe a volume by its header and its grid.

    Parameters
    ----------
    header : mapping
        DICOM keyword to value, of any slice.
    shape : (int, int, int)
        Slices, rows, columns.
    spacing_mm : (float, float, float)
        Between slices, rows, columns.
    head_feet_mm : (float, float, float)
        How far one step along each axis goes towards the head, in mm.
    """
    thickness = numbers(header, "SliceThickness", 1)
    agent = " ".join(texts(header, "ContrastBolusAgent")).strip().upper()
    return Scan(
        modality="".join(texts(header, "Modality")[:1]),
        slices=shape[0],
        slice_spacing_mm=spacing_mm[0],
        pixel_spacing_mm=(spacing_mm[1], spacing_mm[2]),
        field_of_view_mm=(shape[1] * spacing_mm[1], shape[2] * spacing_mm[2]),
        coverage_mm=sum(size * abs(step) for size, step in zip(shape, head_feet_mm, strict=True)),
        slice_thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        kernel="\\".join(texts(header, "ConvolutionKernel")) or None,
        contrast_agent=agent not in _NO_AGENT,
        age_years=age_years(header),
        view="".join(texts(header, "ViewPosition")[:1]) or None,
    )


def why_unfit(accepts: Accepts, scan: Scan) -> str:
    """Say why a volume is none that `accepts` describes; empty when it is one.

    Returns
    -------
    str
        Every reason with both numbers, e.g. ``slice spacing 8 mm, made for up to 3 mm``; no sentence, no full stop.
    """
    return "; ".join([*_of_kind(accepts, scan), *_of_size(accepts, scan), *_of_person(accepts, scan)])


def _of_kind(accepts: Accepts, scan: Scan) -> Iterator[str]:
    if accepts.modality and scan.modality not in accepts.modality:
        yield f"the series is {scan.modality or 'of no modality'}, made for {' or '.join(accepts.modality)}"
    if accepts.views and scan.view not in accepts.views:
        yield f"the image shows {scan.view or 'no view that it names'}, made for {' or '.join(accepts.views)}"
    if accepts.kernels and scan.kernel is None:
        yield "the images name no convolution kernel, made for some only"
    elif scan.kernel is not None and _is_refused(scan.kernel, accepts):
        yield f"convolution kernel {scan.kernel}, not one that it was made for"
    if accepts.contrast is Contrast.WITHOUT and scan.contrast_agent:
        yield "with contrast agent, made for images without"
    if accepts.contrast is Contrast.WITH and not scan.contrast_agent:
        yield "without contrast agent, made for images with one"


def _is_refused(kernel: str, accepts: Accepts) -> bool:
    allowed = not accepts.kernels or any(re.search(pattern, kernel) for pattern in accepts.kernels)
    return not allowed or any(re.search(pattern, kernel) for pattern in accepts.refused_kernels)


def _of_size(accepts: Accepts, scan: Scan) -> Iterator[str]:
    if scan.slices < accepts.min_slices:
        yield f"{count(scan.slices, 'slice')}, made for at least {accepts.min_slices}"
    yield from _most("slice spacing", scan.slice_spacing_mm, accepts.max_slice_spacing_mm)
    if accepts.max_slice_thickness_mm is not None and scan.slice_thickness_mm is None:
        yield f"the images state no slice thickness, made for up to {accepts.max_slice_thickness_mm:g} mm"
    elif scan.slice_thickness_mm is not None:
        yield from _most("slice thickness", scan.slice_thickness_mm, accepts.max_slice_thickness_mm)
    yield from _least("pixel spacing", min(scan.pixel_spacing_mm), accepts.min_pixel_spacing_mm)
    yield from _most("pixel spacing", max(scan.pixel_spacing_mm), accepts.max_pixel_spacing_mm)
    yield from _least("field of view", min(scan.field_of_view_mm), accepts.min_field_of_view_mm)
    yield from _most("field of view", max(scan.field_of_view_mm), accepts.max_field_of_view_mm)
    yield from _least("coverage head to feet", scan.coverage_mm, accepts.min_coverage_mm)


def _of_person(accepts: Accepts, scan: Scan) -> Iterator[str]:
    if scan.age_years is not None:
        yield from _least("age", scan.age_years, accepts.min_age_years, "years")
        yield from _most("age", scan.age_years, accepts.max_age_years, "years")


def _most(what: str, value: float, limit: float | None, unit: str = "mm") -> Iterator[str]:
    if limit is not None and value > limit * (1 + 1e-6):
        yield f"{what} {value:.3g} {unit}, made for up to {limit:g} {unit}"


def _least(what: str, value: float, limit: float | None, unit: str = "mm") -> Iterator[str]:
    if limit is not None and value < limit * (1 - 1e-6):
        yield f"{what} {value:.3g} {unit}, made for at least {limit:g} {unit}"
