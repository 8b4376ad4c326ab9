"""The report of single images on paper: what was said and marked in each, with a picture of it."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image as Pictures
from pydicom.dataset import Dataset
from reportlab.platypus import Flowable, Spacer

from dicom_node.domain.geometry import count
from dicom_node.results.paper import (
    HEAD,
    PLAIN,
    SMALL,
    TITLE,
    WARNING,
    WIDTH,
    about_model,
    figures,
    finding,
    identity_table,
    picture,
    printed,
    series_row,
    text,
)
from dicom_node.results.single.analysed import AnalysedImage, Images
from dicom_node.results.single.picture import draw_image
from dicom_node.results.single.sr import about_size
from dicom_node.results.words import NOT_FOR_DIAGNOSIS, because

MOST_PICTURED = 12
_LARGEST = 1000  # pixels: nobody sees more on half a page


def print_images_report(told: Images, identity: Dataset) -> bytes:
    """Print the report as PDF: the same bytes for the same findings.

    Parameters
    ----------
    identity : pydicom.Dataset
        Whose it is: the object that will hold the document, with patient and study filled in.
    """
    return printed(told.origin, list(_story(told, identity)), "what the model found")


def _story(told: Images, identity: Dataset) -> Iterator[Flowable]:
    origin = told.origin
    yield text(f"{origin.card.title}: what the model found", TITLE)
    yield text(f"{NOT_FOR_DIAGNOSIS}. Made by a machine, not verified by a reader.", WARNING)
    size = count(len(told.images), "single image")
    yield identity_table(
        identity, [series_row(origin), ("Images", size), ("Analysed", f"{origin.time:%Y-%m-%d %H:%M}")]
    )
    if origin.job.note:
        yield text(f"Series not whole: {origin.job.note}.", WARNING)
    for image in told.images:
        if image.why_not:
            yield text(f"{image.name} not analysed: {image.why_not}.", WARNING)
    yield text("Summary", HEAD)
    yield text(_said(told), PLAIN)
    shown = [image for image in told.images if image.says_something]
    for number, image in enumerate(shown):
        yield from _of_image(image, pictured=number < MOST_PICTURED)
    yield from about_model(origin)


def _said(told: Images) -> str:
    if not any(image.says_something for image in told.images):
        return told.silence
    found = [(image, segment.label) for image in told.images for segment in image.marked]
    found += [(image, marked.landmark.label) for image in told.images for marked in image.points]
    said = [f"{label} ({image.in_words})" for image, label in found]
    return f"Found: {', '.join(said)}." if said else "Nothing was marked; what is said of each image follows."


def _of_image(image: AnalysedImage, *, pictured: bool) -> Iterator[Flowable]:
    yield text(image.name, HEAD)
    yield from figures(image.measurements, image.qualities)
    for line in because(image.qualities):
        yield text(line, SMALL)
    for part in image.left_out:
        yield text(f"{part.text}.", SMALL)
    if pictured:
        drawn = Pictures.fromarray(draw_image(image))
        drawn.thumbnail((_LARGEST, _LARGEST))
        yield Spacer(1, 4)
        yield picture(drawn, WIDTH / 2 * min(1.0, 1.4 * drawn.width / drawn.height))
    for marked in image.points:
        across, down = marked.at
        yield text(f"{marked.landmark.label}: column {across:.1f}, row {down:.1f}", PLAIN)
    for segment in image.marked:
        yield finding(segment, list(about_size(image, segment)))
