"""Single images that are no slices: radiographs, mammograms, ultrasound, photographs. Each is looked at by itself.

A series of them is no volume and has no place in the patient. What it is, is told by its SOP class alone, never by what
is missing: a CT without positions stays a CT that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dicom_node.domain.geometry import count
from dicom_node.domain.header import numbers, texts
from dicom_node.errors import GeometryError

MOST_IMAGES = 200  # each is a run of the model
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SINGLE = {  # PS3.4 B.5: classes whose images stand alone
    "1": "a computed radiograph",
    "1.1": "a radiograph",
    "1.1.1": "a radiograph",
    "1.2": "a mammogram",
    "1.2.1": "a mammogram",
    "1.3": "an intra-oral radiograph",
    "1.3.1": "an intra-oral radiograph",
    "6.1": "an ultrasound image",
    "12.1": "an angiogram",
    "12.2": "a fluoroscopy image",
    "77.1.1": "an endoscopic image",
    "77.1.4": "a photograph",
    "77.1.5.1": "a photograph of the eye",
    "77.1.5.2": "a photograph of the eye",
}


class SingleImages(NamedTuple):
    """What examination found: in the order and meaning of the attributes of `study.Verdict`."""

    uids: tuple[str, ...]
    facts: dict[str, Any]
    set_aside: tuple[tuple[str, str], ...]
    refusal: str | None


def is_single_image(header: Mapping[str, Any]) -> bool:
    """Whether an instance is an image that stands alone, by its SOP class."""
    sop_class = "".join(texts(header, "SOPClassUID")[:1])
    return sop_class.startswith(_STORAGE) and sop_class.removeprefix(_STORAGE) in _SINGLE


def examine_images(numbered: Sequence[tuple[str, Mapping[str, Any]]], expected_count: int | None) -> SingleImages:
    """Find the images of a series that stand alone. Never raises, like `study.examine`.

    Parameters
    ----------
    numbered : sequence of (str, mapping)
        SOP Instance UID and header of every instance, in the order of their numbers.
    expected_count : int, optional
        Number of Series Related Instances (0020,1209), where somebody told.
    """
    aside = [(uid, reason) for uid, header in numbered if (reason := _why_not(header))]
    images = [(uid, header) for uid, header in numbered if not _why_not(header)]
    received = len({uid for uid, _ in numbered})
    facts: dict[str, Any] = {
        "slices": len(images),
        "single": True,
        "complete": expected_count is None or received >= expected_count,
    }
    refusal = None
    try:
        _check(images, aside)
        facts |= {name: int(numbers(images[0][1], name.title(), 1)[0]) for name in ("rows", "columns")}
        if expected_count is not None and received < expected_count:
            raise GeometryError(f"{received} of {count(expected_count, 'instance')} arrived.")
    except GeometryError as error:
        refusal = str(error)
    return SingleImages(tuple(uid for uid, _ in images), facts, tuple(aside), refusal)


def _why_not(header: Mapping[str, Any]) -> str:
    """Why an instance is no image to be looked at by itself; empty when it is one."""
    if not is_single_image(header):
        return "no image that stands alone"
    if not numbers(header, "Rows", 1) or not numbers(header, "Columns", 1):
        return f"no image (Modality {'/'.join(texts(header, 'Modality')) or 'unknown'})"
    frames = numbers(header, "NumberOfFrames", 1)
    if frames and frames[0] > 1:
        return f"a film of {frames[0]:g} frames"
    if texts(header, "PhotometricInterpretation") == ("PALETTE COLOR",):
        return "a picture whose stored values are numbers of colours (PALETTE COLOR)"
    return ""


def _check(images: Sequence[tuple[str, Mapping[str, Any]]], aside: Sequence[tuple[str, str]]) -> None:
    if not images:
        kinds = ", ".join(sorted({reason for _, reason in aside}))
        raise GeometryError(f"No images: {count(len(aside), 'instance')}, each set aside ({kinds or 'none came'}).")
    for keyword, what in (("StudyInstanceUID", "studies"), ("PatientID", "patients")):
        different = {texts(header, keyword) for _, header in images}
        if len(different) > 1:
            raise GeometryError(f"The images belong to {len(different)} {what}, by their {keyword}.")
    if len(images) > MOST_IMAGES:
        raise GeometryError(f"{len(images)} single images; at most {MOST_IMAGES} of a series are analysed one by one.")
