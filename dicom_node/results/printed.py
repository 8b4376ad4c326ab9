"""The report on paper: whose images, what was found and how large, what it rests on, and what it is not for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image as Pictures
from pydicom.dataset import Dataset
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Spacer, Table

from dicom_node.results.analysis import Analysis
from dicom_node.results.drawn import draw_slice, key_slices
from dicom_node.results.header import Origin
from dicom_node.results.page import overview
from dicom_node.results.paper import (
    HEAD,
    PLAIN,
    SMALL,
    TITLE,
    WARNING,
    WIDTH,
    about_model,
    finding,
    identity_table,
    picture,
    printed,
    series_row,
    table,
    text,
)
from dicom_node.results.words import NOT_FOR_DIAGNOSIS, because, nothing_found, placed


def print_report(analysis: Analysis, identity: Dataset) -> bytes:
    """Print the report as PDF: the same bytes for the same analysis.

    Parameters
    ----------
    analysis : Analysis
        With or without anything found.
    identity : pydicom.Dataset
        Whose it is: the object that will hold the document, with patient and study filled in.
    """
    return printed(analysis.origin, _story(analysis, identity), "what the model found")


def print_notice(origin: Origin, identity: Dataset, head: str, said: str) -> bytes:
    """Print a page that says in words why there is nothing else to print.

    Parameters
    ----------
    identity : pydicom.Dataset
        Whose it is, as `print_report` takes it.
    head, said : str
        What to say.
    """
    whose = identity_table(identity, [("Asked", f"{origin.time:%Y-%m-%d %H:%M}")])
    story = [text(head, TITLE), text(f"{NOT_FOR_DIAGNOSIS}.", WARNING), whose, Spacer(1, 6), text(said, PLAIN)]
    return printed(origin, story, "no result")


def _story(analysis: Analysis, identity: Dataset) -> list[Flowable]:
    origin, findings = analysis.origin, analysis.findings
    story: list[Flowable] = [
        text(f"{origin.card.title}: what the model found", TITLE),
        text(f"{NOT_FOR_DIAGNOSIS}. Made by a machine, not verified by a reader.", WARNING),
        _identity(analysis, identity),
    ]
    story += [text(f"{part.text}.", WARNING) for part in analysis.not_run]
    story.append(text("Summary", HEAD))
    story.append(text(_said(analysis), PLAIN))
    story += [text(f"{quality.name.meaning}: {quality.value.meaning}", PLAIN) for quality in findings.qualities]
    story += [text(line, SMALL) for line in because(findings.qualities)]
    story += [text(f"{part.text}.", SMALL) for part in findings.not_run if not part.is_part]
    if findings.present or findings.points:
        story += [Spacer(1, 4), picture(overview(analysis), WIDTH)]
    story += [finding(segment) for segment in findings.present]
    if findings.points:
        rows = [(text(point.label, PLAIN), text(placed(point.place_mm), PLAIN)) for point in findings.points]
        story += [text("Points", HEAD), table(rows, (WIDTH / 2, WIDTH / 2))]
    if shown := key_slices(analysis):
        story.append(text("Key images", HEAD))
        story.append(_key_images(analysis, shown[:6]))
    return [*story, *about_model(origin)]


def _said(analysis: Analysis) -> str:
    found = [segment.label for segment in analysis.found] + [point.label for point in analysis.findings.points]
    if not found:
        return nothing_found(analysis.sought, len(analysis.origin.slices))
    return f"Found: {', '.join(found)}."


def _identity(analysis: Analysis, identity: Dataset) -> Table:
    spacing = analysis.volume.spacing_mm
    slices, rows, columns = analysis.shape
    size = f"{slices} of {columns} x {rows}, {spacing[0]:.2f} mm apart, pixels of {spacing[2]:.2f} mm"
    about = [series_row(analysis.origin), ("Images", size), ("Analysed", f"{analysis.origin.time:%Y-%m-%d %H:%M}")]
    return identity_table(identity, about)


def _key_images(analysis: Analysis, shown: Sequence[int]) -> Table:
    across = 3
    side = (WIDTH - 6 * mm) / across
    cells: list[Any] = [picture(Pictures.fromarray(draw_slice(analysis, k, analysis.found)), side) for k in shown]
    cells += [""] * (-len(cells) % across)
    return Table([cells[n : n + across] for n in range(0, len(cells), across)], colWidths=[side + 2 * mm] * across)
