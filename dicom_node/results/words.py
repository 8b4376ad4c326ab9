"""How numbers, categories and parts that were not run are put into words, alike in report, picture and text."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.domain.finding import Map, Measurement, Point, Quality, Registration, Segment
from dicom_node.domain.header import texts
from dicom_node.domain.job import JobInput

CALCULATED = "Calculated by the node from the model's outlines, classes and measurements; no reader has assessed it."
BOX = "Marked by the box that the model drew around it, not by its outline; nothing was measured."
OF_MAP = "An image that the model made, no acquisition. Measured inside of the body; no reader has assessed it."
NOT_FOR_DIAGNOSIS = "RESEARCH ONLY - NOT FOR DIAGNOSTIC USE"
_UNITS = {"[hnsf'U]": "HU", "1": "", "{ratio}": ""}
_ML = 1000.0  # mm3
_LONG_AXIS = "103339001"  # SCT


def nothing_found(sought: Sequence[str], images: int) -> str:
    """Say what was looked for: ``Nothing was found in 275 images: no nodule.``."""
    return f"Nothing was found in {images} images" + (f": no {', no '.join(sought)}." if sought else ".")


def because(qualities: Sequence[Quality]) -> list[str]:
    """Say of each category that has a reason what it rests on: ``Lung-RADS 2022 4A: solid, 8.4 mm``."""
    return [f"{quality.name.meaning} {quality.value.meaning}: {quality.note}" for quality in qualities if quality.note]


def certainty(score: float) -> str:
    """Say what the score of a detection is, and what it is not."""
    return f"Certainty {score:.0%}: the model's own score, not calibrated, and no probability of malignancy."


def titled(segment: Segment) -> str:
    """``Nodule 1: 8.4 mm``: the name of a finding, and its longest diameter where it has one."""
    longest = next((each for each in segment.measurements if each.name.value == _LONG_AXIS), None)
    return f"{segment.label}: {valued(longest)}" if longest and longest.value is not None else segment.label


def placed(place_mm: Point) -> str:
    """``L 12.3 P 4.5 H 101.2 mm``: where a point lies from the origin of the frame of reference (PS3.3 C.7.6.1.1.1)."""
    letters = (("R", "L"), ("A", "P"), ("F", "H"))
    said = (f"{pair[mm >= 0]} {abs(mm):.1f}" for pair, mm in zip(letters, place_mm, strict=True))
    return f"{' '.join(said)} mm"


def named(measurement: Measurement) -> str:
    """``Mean attenuation coefficient``."""
    derivation = (measurement.derivation.meaning,) if measurement.derivation else ()
    words = " ".join((*derivation, measurement.name.meaning)).split()
    return " ".join(word.lower() if n and word.istitle() else word for n, word in enumerate(words))


def valued(measurement: Measurement) -> str:
    """``8.4 mm``, ``1,230 ml``, or why there is no value."""
    value, unit = measurement.value, measurement.unit.value
    if value is None:
        return (measurement.reason.meaning if measurement.reason else "not measured").lower()
    if unit == "mm3" and abs(value) >= _ML:
        value, unit = value / _ML, "ml"
    return f"{_number(value)} {_UNITS.get(unit, unit)}".rstrip()


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:.1f}"


def made_from(inputs: Sequence[JobInput]) -> list[str]:
    """Say which series the model worked on, where there were several, and which of them the results lie on."""
    if len(inputs) < 2:
        return []
    described = ", ".join(f"{one.role} ({_description(one)})" for one in inputs)
    return [f"Made from {len(inputs)} series: {described}. All places are those of {inputs[0].role}."]


def registered(found: Registration | None) -> list[str]:
    """Say how the moving series lies on the fixed one, how it was laid before, and what of it cannot be."""
    if found is None:
        return []
    far = f"{found.mean_mm:g} mm on average and at most {found.largest_mm:g} mm"
    said = [
        f"Registration of {found.moving} on {found.fixed}: what is in the body moved {far}. No reader has assessed it."
    ]
    if not found.is_one_frame:
        shift = " ".join(f"{mm:.1f}" for mm in found.start_mm)
        said.append(
            "The series have different frames of reference: registration began with their middles upon each other "
            f"({found.moving} shifted by {shift} mm, LPS), and distances are counted from there."
        )
    if found.folded_percent:
        said.append(f"The field folds {found.folded_percent:g} % of the body: there it shows no motion of tissue.")
    return said


def mapped(each: Map) -> str:
    """``mean 38.5 HU, -1,024 to 1,310 HU in the body``: what an image of the model holds."""
    mean, _, lowest, highest = each.measurements
    return f"mean {valued(mean)}, {valued(lowest)} to {valued(highest)} in the body"


def _description(one: JobInput) -> str:
    found = texts(one.instances[0].header, "SeriesDescription") if one.instances else ()
    return " ".join(found) or "without a description"
