"""Judges what a model says of the nodules in one scan: found or not, how well outlined, how classed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Prediction, Volume
from ai.data.case import Case
from ai.data.nodule import Nodule, sphere_mm, voxel_ml
from ai.evaluate.froc import Candidate, Scan, match
from ai.evaluate.overlap import agreement
from ai.evaluate.picture import save_close_up

_TOLERANCE_MM = 1.0
_FALSE_PICTURES = 2
_Box = tuple[slice, slice, slice]


class Model(Protocol):
    """What answers: `ai.process.ModelProcess` does."""

    def predict(self, volume: Volume, *, timeout_s: float) -> Prediction:
        """Look at one volume."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One thing that the model took for a nodule: middle and volume of its mask, score, classes."""

    centre_mm: tuple[float, float, float]
    score: float
    volume_ml: float
    classes: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Outline:
    """A nodule of the reference and the mask of the spot that hit it.

    Parameters
    ----------
    nodule, spot : int
        Indices into the case's lists.
    dice, surface_dice : float, optional
        None where the reference has no mask. The tolerance is 1 mm.
    volume_ml, reference_ml : float, optional
        Of the model's mask, and as the reference gives it.
    """

    nodule: int
    spot: int
    dice: float | None
    surface_dice: float | None
    volume_ml: float
    reference_ml: float | None

    @property
    def volume_error(self) -> float | None:
        """Difference of the volumes, relative to the reference."""
        return None if not self.reference_ml else self.volume_ml / self.reference_ml - 1

    @property
    def diameter_error_mm(self) -> float | None:
        """Difference of the diameters of spheres of these volumes."""
        return None if self.reference_ml is None else sphere_mm(self.volume_ml) - sphere_mm(self.reference_ml)


@dataclass(frozen=True, slots=True)
class Picture:
    """A close-up that was saved: of what (``missed``, ``false``, ``outline``), how bad it is, and what it shows."""

    kind: str
    badness: float
    file: str
    caption: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case; `error` is set where the model gave no answer, and then the lists are empty."""

    id: str
    source: str
    licence: str
    reference: str
    spots: tuple[Spot, ...] = ()
    nodules: tuple[Nodule, ...] = ()
    outlines: tuple[Outline, ...] = ()
    pictures: tuple[Picture, ...] = ()
    seconds: float = 0.0
    device: str = ""
    error: str = ""

    @property
    def scan(self) -> Scan:
        """The same, as the FROC analysis wants it."""
        return Scan(self.id, tuple(Candidate(spot.centre_mm, spot.score) for spot in self.spots), self.nodules)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a line in a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Result:
        """Read back what `to_json` gave."""
        spots = tuple(Spot(**{**one, "centre_mm": tuple(one["centre_mm"])}) for one in plain["spots"])
        nodules = tuple(Nodule(**{**one, "centre_mm": tuple(one["centre_mm"])}) for one in plain["nodules"])
        outlines = tuple(Outline(**one) for one in plain["outlines"])
        pictures = tuple(Picture(**one) for one in plain["pictures"])
        return cls(**{**plain, "spots": spots, "nodules": nodules, "outlines": outlines, "pictures": pictures})


def judge(case: Case, model: Model, timeout_s: float, pictures: Path | None = None) -> Result:
    """Ask the model about one case and compare.

    Parameters
    ----------
    case : Case
        With its nodules.
    model : Model
        Answers with detections and their masks.
    timeout_s : float
        For the answer.
    pictures : pathlib.Path, optional
        A folder for close-ups of what went worst.

    Raises
    ------
    ModelError
        If there is no answer.
    """
    return compare(case, model.predict(case.volume, timeout_s=timeout_s), pictures)


def compare(case: Case, prediction: Prediction, pictures: Path | None = None) -> Result:
    """Compare what a model said with what is known of the case; see `judge`."""
    instances = prediction.instances
    if instances is None:
        instances = np.zeros(case.volume.array.shape, dtype=np.uint8)
    boxes = _boxes(instances, len(prediction.detections))
    kept = [number for number, box in enumerate(boxes) if box is not None]  # one without voxels is nowhere
    spots = []
    for number in kept:
        detection = prediction.detections[number]
        centre_mm, size_ml = _middle(instances, boxes[number], number + 1, case.volume)
        spots.append(Spot(centre_mm, detection.score, size_ml, detection.classes))
    result = Result(
        case.id,
        case.provenance.source,
        case.provenance.licence,
        case.provenance.reference,
        tuple(spots),
        case.nodules,
        seconds=sum(prediction.steps_s.values()),
        device=prediction.device,
    )
    hit_by = match(result.scan).hit_by
    outlines = tuple(
        _outline(case, index, int(spot), instances, kept[int(spot)] + 1, spots[int(spot)])
        for index, spot in enumerate(hit_by)
        if spot >= 0 and not case.nodules[index].excluded
    )
    result = replace(result, outlines=outlines)
    return result if pictures is None else replace(result, pictures=_pictures(case, result, instances, pictures))


def _boxes(instances: NDArray[np.uint8], count: int) -> list[_Box | None]:
    found = ndimage.find_objects(instances, max_label=max(1, count))
    return [found[index] for index in range(count)]


def _middle(
    instances: NDArray[np.uint8], box: _Box | None, number: int, volume: Volume
) -> tuple[tuple[float, float, float], float]:
    assert box is not None
    voxels = np.argwhere(instances[box] == number)
    index = voxels.mean(axis=0) + [part.start for part in box]
    x, y, z = (volume.affine @ np.append(index, 1.0))[:3]
    return (float(x), float(y), float(z)), len(voxels) * voxel_ml(volume)


def _outline(case: Case, index: int, spot: int, instances: NDArray[np.uint8], number: int, said: Spot) -> Outline:
    nodule = case.nodules[index]
    reference = case.instances
    if reference is None or nodule.instance is None:
        return Outline(index, spot, None, None, said.volume_ml, nodule.volume_ml)
    box = _union(_around(instances, number), _around(reference, nodule.instance))
    found = agreement(
        instances[box] == number, reference[box] == nodule.instance, case.volume.spacing_mm, _TOLERANCE_MM
    )
    known_ml = found.reference_ml if nodule.volume_ml is None else nodule.volume_ml
    return Outline(index, spot, found.dice, found.surface_dice, said.volume_ml, known_ml)


def _around(instances: NDArray[np.uint8], number: int) -> list[_Box]:
    found: list[_Box] = ndimage.find_objects((instances == number).view(np.uint8))
    return found


def _union(*found: list[_Box]) -> _Box:
    boxes = [box for boxes in found for box in boxes]
    spans = [(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)) for axis in range(3)]
    return slice(*spans[0]), slice(*spans[1]), slice(*spans[2])


def _pictures(case: Case, result: Result, instances: NDArray[np.uint8], folder: Path) -> tuple[Picture, ...]:
    """Close-ups of every missed nodule, the surest false positives and the worst outline."""
    matched = match(result.scan)
    wanted: list[tuple[str, float, tuple[float, float, float], str]] = []
    for index, nodule in enumerate(case.nodules):
        if matched.hit_by[index] < 0 and not nodule.excluded:
            kind = ", ".join(word for word in (nodule.attenuation, nodule.margin) if word)
            wanted.append(("missed", nodule.diameter_mm, nodule.centre_mm, f"{nodule.diameter_mm:.1f} mm, {kind}"))
    surest = sorted(matched.false, key=lambda index: -result.spots[index].score)[:_FALSE_PICTURES]
    for index in surest:
        spot = result.spots[index]
        wanted.append(("false", spot.score, spot.centre_mm, f"score {spot.score:.2f}, {spot.volume_ml * 1000:.0f} mm³"))
    drawn = [outline for outline in result.outlines if outline.dice is not None]
    if drawn:
        worst = min(drawn, key=lambda outline: outline.dice or 0.0)
        nodule = case.nodules[worst.nodule]
        dice = worst.dice or 0.0
        wanted.append(("outline", 1 - dice, nodule.centre_mm, f"Dice {dice:.2f}, {nodule.diameter_mm:.1f} mm"))
    saved = []
    for number, (kind, badness, centre_mm, caption) in enumerate(wanted):
        file = f"{case.id}-{number}.png"
        save_close_up(case.volume, centre_mm, case.instances, instances, folder / file)
        saved.append(Picture(kind, float(badness), file, caption))
    return tuple(saved)
