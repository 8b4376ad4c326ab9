"""The overview of a study on one page: what was found, where, how large, and what spoke for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dicom_node.domain.finding import Landmark, Measurement, Quality, Segment
from dicom_node.domain.geometry import count
from dicom_node.results.analysis import Analysis
from dicom_node.results.anatomy import LUNG
from dicom_node.results.document import ANATOMICAL_STRUCTURE
from dicom_node.results.planes import AXIAL, CORONAL, SAGITTAL, Raster, View, covered, outline, sample
from dicom_node.results.sheet import (
    AMBER,
    BACKGROUND,
    LINE,
    MUTED,
    TEXT,
    Color,
    beside,
    font,
    padded,
    pair,
    paragraph,
    plain,
    rule,
    stacked,
)
from dicom_node.results.words import CALCULATED, NOT_FOR_DIAGNOSIS, OF_MAP, named, nothing_found, placed, valued

WIDTH, _MARGIN, _GAP = 1600, 24, 14
_INNER = WIDTH - 2 * _MARGIN
_PANEL, _TILE = 480, 216
_WIDEST_PAIR = 420  # the eye loses the line when a value is further from its name
MOST_PICTURED = 4
MOST_POINTS = 30  # that are listed and marked; all are in the report
_LUNG_WINDOW, _SOFT_WINDOW = (-500.0, 1600.0), (40.0, 400.0)  # center and width, HU
_HEAT = np.array([(0, 0, 0), (120, 0, 20), (225, 40, 10), (255, 150, 0), (255, 235, 110), (255, 255, 255)], float)


def draw_page(analysis: Analysis) -> NDArray[np.uint8]:
    """Draw the page: the same pixels for the same analysis.

    Parameters
    ----------
    analysis : Analysis
        With or without anything found.

    Returns
    -------
    numpy.ndarray of uint8, shape (rows, 1600, 3)
        RGB, to be looked at pixel for pixel. It names no patient: a viewer says whose it is, and the page may be shown
        where the patient may not.
    """
    lesions = _lesions(analysis)
    facts = _facts(analysis, lesions, _INNER - 2 * (_PANEL + _GAP))
    blocks = [_header(analysis), rule(_INNER), beside([overview(analysis), facts], _GAP)]
    for number, lesion in enumerate(lesions[:MOST_PICTURED], start=1):
        blocks += [rule(_INNER), _lesion(analysis, number, lesion)]
    if rest := lesions[MOST_PICTURED:]:
        blocks += [rule(_INNER), _rest(rest)]
    if points := analysis.findings.points:
        blocks += [rule(_INNER), _points(points, len(lesions) + 1)]
    body = stacked([*blocks, rule(_INNER), _footer(analysis)], 4)
    page = Image.new("RGB", (WIDTH, body.height + 2 * _MARGIN), BACKGROUND)
    page.paste(body, (_MARGIN, _MARGIN))
    return np.asarray(page).copy()


def overview(analysis: Analysis) -> Image.Image:
    """Draw two planes of the whole volume, through the first lesion, with everything outlined."""
    lesions = _lesions(analysis)
    center = _of_interest(analysis, lesions)
    return beside([_panel(analysis, view, center, lesions) for view in (CORONAL, AXIAL)], _GAP)


def _lesions(analysis: Analysis) -> list[Segment]:
    return [segment for segment in analysis.findings.present if not _is_organ(segment)]


def _is_organ(segment: Segment) -> bool:
    return segment.category.value == ANATOMICAL_STRUCTURE


def _header(analysis: Analysis) -> Image.Image:
    origin, spacing = analysis.origin, analysis.volume.spacing_mm
    room = int(font(20).getlength(NOT_FOR_DIAGNOSIS)) + 1
    warning = paragraph(NOT_FOR_DIAGNOSIS, room, 20, AMBER)
    title = paragraph(f"{origin.card.title}: what the model found", _INNER - room - _GAP, 26)
    slices, rows, columns = analysis.shape
    date, number = str(origin.patient.StudyDate or ""), origin.patient.get("SeriesNumber")
    series = [
        f"{origin.slices[0].Modality} of {date[:4]}-{date[4:6]}-{date[6:]}" if date else origin.slices[0].Modality,
        *([f"series {number}"] if number else []),
        f"{slices} slices {spacing[0]:.2f} mm apart",
        f"{columns} x {rows} pixels of {spacing[2]:.2f} x {spacing[1]:.2f} mm",
    ]
    return stacked([beside([title, warning], _GAP), paragraph(", ".join(series), _INNER, 15, MUTED)], 2)


def _of_interest(analysis: Analysis, lesions: Sequence[Segment]) -> NDArray[np.float64]:
    """Where the planes cross: in the first lesion, or in the middle of what is marked, or of the volume."""
    shown = lesions[:1] or analysis.findings.present
    if not shown and analysis.findings.points:
        return np.asarray(np.mean([point.place_mm for point in analysis.findings.points], axis=0), np.float64)
    if not shown:
        return _mm(analysis, (np.array(analysis.shape) - 1) / 2)
    centers = [_mm(analysis, analysis.crop(segment.output).center) for segment in shown]
    return np.asarray(np.mean(centers, axis=0), np.float64)


def _mm(analysis: Analysis, index: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = analysis.volume.affine
    return np.asarray(affine[:3, :3] @ index + affine[:3, 3], np.float64)


def _panel(analysis: Analysis, view: View, center: NDArray[np.float64], lesions: Sequence[Segment]) -> Image.Image:
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in analysis.shape])).reshape(3, -1).T
    corners = np.array([_mm(analysis, end) for end in ends])
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, directions = (low + high) / 2, np.abs(np.array([view.right, view.down]))
    extent_mm = float((directions @ (high - low)).max())
    across = np.abs(np.cross(view.right, view.down)).astype(bool)
    raster = Raster(view, np.where(across, center, middle), (_PANEL, _PANEL), extent_mm / (_PANEL - 1))
    image = _drawn(analysis, raster, analysis.findings.present)
    pen = ImageDraw.Draw(image)
    _letters(pen, raster)
    places = [_mm(analysis, analysis.crop(lesion.output).center) for lesion in lesions]
    places += [np.array(point.place_mm) for point in analysis.findings.points[:MOST_POINTS]]
    _numbers(pen, raster, places)
    said = "; numbers: where the findings lie" if places else ""
    return stacked([paragraph(f"{view.name}{said}", _PANEL, 14, MUTED), image], 2)


def _drawn(analysis: Analysis, raster: Raster, segments: Sequence[Segment]) -> Image.Image:
    """CT in grey, with the outline of each segment."""
    indices = raster.indices(analysis.volume.affine)
    rgb = _grey(analysis, indices)
    for segment in segments:
        rgb[outline(covered(analysis.crop(segment.output), indices))] = segment.color_rgb
    return Image.fromarray(rgb)


def _grey(analysis: Analysis, indices: NDArray[np.float64]) -> NDArray[np.uint8]:
    center, width = window(analysis)
    low = center - width / 2
    grey = np.clip((sample(analysis.shown, indices, low) - low) / width * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def window(analysis: Analysis) -> tuple[float, float]:
    """Center and width that suit what the model looks at."""
    if analysis.pictured is not None:
        return analysis.pictured.window
    if analysis.origin.slices[0].Modality != "CT":
        some = analysis.volume.array[:: 1 + analysis.shape[0] // 20]
        low, high = (float(v) for v in np.percentile(some, (1, 99)))
        return (low + high) / 2, max(high - low, 1.0)
    places = [place for segment in analysis.origin.card.segments for place in (segment.type, segment.region)]
    return _LUNG_WINDOW if any(place is not None and place.value == LUNG for place in places) else _SOFT_WINDOW


def _letters(pen: ImageDraw.ImageDraw, raster: Raster) -> None:
    width, height = raster.size
    left, right, top, bottom = tuple(raster.view.letters)
    places: list[tuple[tuple[float, float], str, str]] = [
        ((6, height / 2), left, "lm"),
        ((width - 6, height / 2), right, "rm"),
        ((width / 2, 4), top, "ma"),
        ((width / 2, height - 4), bottom, "md"),
    ]
    for place, letter, anchor in places:
        pen.text(place, letter, AMBER, font(14), anchor=anchor, stroke_width=2, stroke_fill="black")


def _numbers(pen: ImageDraw.ImageDraw, raster: Raster, points_mm: Sequence[NDArray[np.float64]]) -> None:
    """Mark where each finding lies, with numbers that keep clear of each other."""
    taken: list[tuple[float, float]] = []
    for number, point in enumerate(points_mm, start=1):
        x, y = raster.pixel(point)
        spots = [
            (x + r * np.cos(angle), y + r * np.sin(angle))
            for r in (26, 48, 70, 92)
            for angle in np.deg2rad((-45, 45, 135, 225, 0, 90, 180, 270))
        ]
        free = [s for s in spots if all(12 < v < n - 12 for v, n in zip(s, raster.size, strict=True))]
        clear = [s for s in free if all(np.hypot(s[0] - a, s[1] - b) > 24 for a, b in taken)]
        spot = (clear or free or spots)[0]
        taken.append(spot)
        pen.line((x, y, *spot), fill=AMBER)
        _circled(pen, spot, number)


def _facts(analysis: Analysis, lesions: Sequence[Segment], width: int) -> Image.Image:
    findings, blocks = analysis.findings, []
    for part in findings.not_run:
        loud = part in analysis.not_run
        blocks.append(padded(paragraph(f"{part.text}.", width, 16 if loud else 13, AMBER if loud else MUTED), 0, 4))
    blocks.append(paragraph(_found(analysis, lesions), width, 18))
    if findings.qualities:
        blocks += [padded(paragraph("Whole scan", width, 14, MUTED), 8, 0), *_qualities(findings.qualities, width)]
    for organ in (segment for segment in findings.present if _is_organ(segment)):
        blocks.append(padded(_heading(organ.label, organ.color_rgb, width), 10, 2))
        blocks.append(_measurements(organ.measurements, width))
        blocks += _qualities(organ.qualities, width)
    for each in findings.maps:
        blocks.append(padded(_heading(each.label, TEXT, width), 10, 2))
        blocks.append(_measurements(each.measurements, width))
        blocks.append(padded(paragraph(OF_MAP, width, 13, MUTED), 4, 0))
    if findings.present:
        blocks.append(padded(paragraph(CALCULATED, width, 13, MUTED), 12, 0))
    return stacked(blocks)


def _found(analysis: Analysis, lesions: Sequence[Segment]) -> str:
    slices, points, maps = analysis.shape[0], len(analysis.findings.points), analysis.findings.maps
    if not analysis.found and not points and maps and analysis.said:
        return f"{count(len(maps), 'image')} made of {slices}; shown here: {maps[0].label}"
    if not analysis.found and points:
        return f"{count(points, 'point')} named in {slices} images"
    if not analysis.found:
        return nothing_found(analysis.sought, slices)
    if lesions:
        return f"{len(lesions)} finding{'s' if len(lesions) > 1 else ''} in {slices} images"
    return f"{len(analysis.findings.present)} structures marked in {slices} images"


def _heading(text: str, color: Color, width: int) -> Image.Image:
    block = Image.new("RGB", (width, 22), BACKGROUND)
    pen = ImageDraw.Draw(block)
    pen.rectangle((0, 4, 12, 16), fill=color)
    pen.text((22, 0), plain(text), TEXT, font(16))
    return block


def _measurements(measurements: Sequence[Measurement], width: int) -> Image.Image:
    """Numbers in two columns, to be read down."""
    half = min((width - 2 * _GAP) // 2, _WIDEST_PAIR)
    cells = [pair(named(each), valued(each), half) for each in measurements]
    if not cells:
        return Image.new("RGB", (width, 1), BACKGROUND)
    middle = (len(cells) + 1) // 2
    columns = [stacked(column) for column in (cells[:middle], cells[middle:]) if column]
    return beside(columns, 2 * _GAP)


def _qualities(qualities: Sequence[Quality], width: int) -> list[Image.Image]:
    blocks = []
    for quality in qualities:
        blocks.append(pair(quality.name.meaning, quality.value.meaning, min(width, _WIDEST_PAIR)))
        if quality.note:
            blocks.append(padded(paragraph(quality.note, width, 13, MUTED), 0, 3))
    return blocks


def _lesion(analysis: Analysis, number: int, lesion: Segment) -> Image.Image:
    """One finding in three planes, with what spoke for it beside, and its numbers."""
    center = _mm(analysis, analysis.crop(lesion.output).center)
    extent_mm = float((np.array(analysis.crop(lesion.output).voxels.shape) * analysis.volume.spacing_mm).max())
    pixel_mm = max(40.0, 2.5 * extent_mm) / _TILE
    tiles = [
        _tile(analysis, Raster(view, center, (_TILE, _TILE), pixel_mm), lesion) for view in (AXIAL, CORONAL, SAGITTAL)
    ]
    if analysis.saliency is not None:
        tiles.append(_heat_tile(analysis, Raster(AXIAL, center, (_TILE, _TILE), pixel_mm), analysis.saliency))
    room = _INNER - len(tiles) * (_TILE + _GAP)
    head = beside([_badge(number), paragraph(_called(lesion), room - 26 - 10, 18)], 10)
    if lesion.score is not None:
        head = stacked([head, paragraph(f"certainty {lesion.score:.0%}, the model's own score", room, 13, MUTED)])
    words = [head, padded(_measurements(lesion.measurements, room), 6, 4), *_qualities(lesion.qualities, room)]
    return beside([*tiles, stacked(words)], _GAP)


def _badge(number: int) -> Image.Image:
    """Draw the number by which the overview knows the finding."""
    block = Image.new("RGB", (26, 26), BACKGROUND)
    _circled(ImageDraw.Draw(block), (12.5, 12.5), number)
    return block


def _circled(pen: ImageDraw.ImageDraw, at: tuple[float, float], number: int) -> None:
    pen.ellipse((at[0] - 11, at[1] - 11, at[0] + 11, at[1] + 11), fill=BACKGROUND, outline=AMBER)
    pen.text(at, str(number), TEXT, font(14), anchor="mm")


def _called(lesion: Segment) -> str:
    side = f"{lesion.laterality.meaning.lower()} " if lesion.laterality else ""
    return f"{lesion.label}, {side}{lesion.region.meaning.lower()}" if lesion.region else lesion.label


def _tile(analysis: Analysis, raster: Raster, lesion: Segment) -> Image.Image:
    return _captioned(_drawn(analysis, raster, [lesion]), raster, raster.view.name)


def _heat_tile(analysis: Analysis, raster: Raster, saliency: NDArray[np.uint8]) -> Image.Image:
    indices = raster.indices(analysis.volume.affine)
    heat = sample(saliency, indices, 0.0) / 255
    color = np.stack([np.interp(heat, np.linspace(0, 1, len(_HEAT)), channel) for channel in _HEAT.T], axis=-1)
    share = (0.85 * np.sqrt(heat))[..., None]
    blended = _grey(analysis, indices) * (1 - share) + color * share
    return _captioned(Image.fromarray(blended.astype(np.uint8)), raster, "Axial: what spoke for it")


def _captioned(image: Image.Image, raster: Raster, caption: str) -> Image.Image:
    """Letters at the edges, and a bar of a centimetre."""
    pen = ImageDraw.Draw(image)
    _letters(pen, raster)
    width, height = raster.size
    bar = 10.0 / raster.pixel_mm
    pen.line((width - 10 - bar, height - 10, width - 10, height - 10), fill=TEXT, width=2)
    at = (width - 10 - bar / 2, height - 14)
    pen.text(at, "1 cm", TEXT, font(12), anchor="md", stroke_width=2, stroke_fill="black")
    pen.rectangle((0, 0, width - 1, height - 1), outline=LINE)
    return stacked([paragraph(caption, width, 13, MUTED), image], 2)


def _rest(lesions: Sequence[Segment]) -> Image.Image:
    """The findings that have no picture here, a line each."""
    lines = []
    for number, lesion in enumerate(lesions, start=MOST_PICTURED + 1):
        said: list[Any] = [f"{named(each)} {valued(each)}" for each in lesion.measurements[:4]]
        said += [f"{quality.name.meaning} {quality.value.meaning}" for quality in lesion.qualities]
        lines.append(paragraph(f"{number} {_called(lesion)}: {', '.join(said)}", _INNER, 14))
    return stacked(lines, 2)


def _points(points: Sequence[Landmark], first: int) -> Image.Image:
    """Where each point lies, a line each, in two columns."""
    half = (_INNER - _GAP) // 2
    listed = points[:MOST_POINTS]
    lines = [
        paragraph(f"{number} {point.label}: {placed(point.place_mm)}", half, 14)
        for number, point in enumerate(listed, start=first)
    ]
    middle = (len(lines) + 1) // 2
    blocks = [beside([stacked(column, 2) for column in (lines[:middle], lines[middle:]) if column], _GAP)]
    if more := len(points) - len(listed):
        blocks.append(paragraph(f"{more} more in the report", _INNER, 13, MUTED))
    return stacked(blocks, 2)


def _footer(analysis: Analysis) -> Image.Image:
    origin = analysis.origin
    model = f"{origin.card.name} {origin.algorithm_version} by {origin.card.manufacturer}, device {origin.device_uid}"
    node = f"drawn by {origin.equipment.model_name} {origin.equipment.version} at {origin.time:%Y-%m-%d %H:%M}"
    lines = [f"{model}; {node}.", origin.statement]
    return stacked([paragraph(line, _INNER, 13, MUTED) for line in lines])
