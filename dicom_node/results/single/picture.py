"""Single images with what was found drawn over them: Secondary Capture, for whoever shows no segments and reports."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from dicom_node.domain.model import OutputKind
from dicom_node.results.capture import capture
from dicom_node.results.drawn import ARM, cross, say
from dicom_node.results.header import references, series_description
from dicom_node.results.pictures import begin_pictures, complete_pictures, encode_picture
from dicom_node.results.planes import outline
from dicom_node.results.sheet import plain
from dicom_node.results.single.analysed import AnalysedImage, Images
from dicom_node.results.words import NOT_FOR_DIAGNOSIS

_FRAMES = {OutputKind.KEY_IMAGES: ("key images", 7), OutputKind.OVERLAY: ("overlay", 8)}
_FAINTEST, _BRIGHTEST = 0.5, 99.5  # percent of the pixels


def build_image_picture(told: Images, image: AnalysedImage, kind: OutputKind) -> Dataset:
    """Draw one image pixel for pixel."""
    origin = told.origin
    what = f"Image with the findings of {origin.card.name} {origin.algorithm_version}. {origin.statement}"
    part = f"{kind.value}/{image.number}"
    description = series_description(origin, "SC")
    made = capture(origin, draw_image(image), part, 15 if kind is OutputKind.CAPTURES else 3, description, what)
    made.SeriesInstanceUID = origin.uid(f"{kind.value}/series")
    made.InstanceNumber = image.number
    made.SourceImageSequence = references([told.header(image)])
    if side := image.header.get("ImageLaterality"):
        made.ImageLaterality = side
    return made


def build_image_frame(told: Images, image: AnalysedImage, kind: OutputKind) -> Dataset:
    """Draw one image pixel for pixel, as key images and the overlay of a volume are: JPEG-LS without loss."""
    origin = told.origin
    what, position = _FRAMES[kind]
    about = f"Image with the findings of {origin.card.name} {origin.algorithm_version}. {origin.statement}"
    part = f"{kind.value}/{image.number}"
    made = begin_pictures(origin, part, position, series_description(origin, what), about)
    made.SeriesInstanceUID = origin.uid(f"{kind.value}/series")
    made.InstanceNumber = image.number
    made.SourceImageSequence = references([told.header(image)])
    made.PatientOrientation = image.header.get("PatientOrientation") or ""
    if side := image.header.get("ImageLaterality"):
        made.ImageLaterality = side
    rgb = draw_image(image)
    complete_pictures(made, origin, rgb.shape[:2], [encode_picture(rgb)])
    return made


def draw_image(image: AnalysedImage) -> NDArray[np.uint8]:
    """Draw an image with its outlines and boxes: RGB, as many rows and columns as it has; it names no patient."""
    rgb = _grey(image) if len(image.planes) == 1 else _coloured(image)
    for region in image.present:
        rgb[outline(region.mask)] = region.segment.color_rgb
    picture = Image.fromarray(rgb)
    pen, size = ImageDraw.Draw(picture), max(12, picture.height // 60)
    for boxed in image.boxes:
        left, top, right, bottom = boxed.corners
        pen.rectangle((left, top, right - 1, bottom - 1), outline=boxed.segment.color_rgb, width=2)
        say(pen, (left + 3, top + 2), plain(boxed.segment.label), size, "la")
    for marked in image.points:
        across, down = marked.at
        cross(pen, (across - 0.5, down - 0.5), marked.landmark.color_rgb)
        say(pen, (across + ARM + 3, down), plain(marked.landmark.label), size, "lm")
    lines = [f"AI result, {image.in_words}"]
    lines += [f"{each.name.meaning}: {each.value.meaning}" for each in image.qualities]
    for n, line in enumerate(lines):
        say(pen, (4, 3 + 1.25 * size * n), plain(line), size, "la")
    say(pen, (picture.width / 2, picture.height - 4), NOT_FOR_DIAGNOSIS, size, "md")
    return np.array(picture)


def _grey(image: AnalysedImage) -> NDArray[np.uint8]:
    (plane,) = image.planes.values()
    low, high = np.percentile(plane, (_FAINTEST, _BRIGHTEST))
    grey = np.clip((plane - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _coloured(image: AnalysedImage) -> NDArray[np.uint8]:
    return np.stack([np.clip(plane, 0, 255).astype(np.uint8) for plane in image.planes.values()], axis=-1)
