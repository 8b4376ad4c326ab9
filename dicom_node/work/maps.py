"""The images that a model answers with, in the units of its card: checked, and measured inside of the body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ai.contract import ModelInvalidOutput, Prediction
from ai.measure.motion import Inside, body_in
from dicom_node.domain import codes
from dicom_node.domain.finding import Map, Measurement
from dicom_node.domain.model import MapCard, ModelCard
from dicom_node.domain.uids import result_uid
from dicom_node.volume import Volume

_DIGITS = 4  # that count, of a value of a map
_NEARLY_ALL = (1.0, 99.0)  # percentiles


def in_units(prediction: Prediction, card: ModelCard) -> Prediction:
    """Give the images that the card names, in their units, and no others.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the model gives none of such a name, or one that says nothing: one value everywhere.
    """
    if not card.maps:
        return replace(prediction, images={}) if prediction.images else prediction
    return replace(prediction, images=dict(_scaled(prediction.images, card)))


def maps_from(prediction: Prediction, card: ModelCard, volume: Volume, named_by: str) -> tuple[Map, ...]:
    """Measure each image of the card.

    Parameters
    ----------
    prediction : ai.contract.Prediction
        As `in_units` gives it.
    volume : Volume
        What it was made of: where the body is.
    named_by : str
        Tracking UIDs derive from it.
    """
    if not card.maps:
        return ()
    body = body_in(volume.array, volume.affine, is_ct=volume.datasets[0].get("Modality") == "CT")
    return tuple(_measured(each, prediction.images[each.output], body, card, named_by) for each in card.maps)


def _scaled(images: Mapping[str, NDArray[np.float32]], card: ModelCard) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for each in card.maps:
        if each.output not in images:
            known = ", ".join(images) or "none"
            raise ModelInvalidOutput(f"The model gives no image named {each.output!r}; it has: {known}.")
        image = images[each.output]
        if not each.may_be_constant and image.min() == image.max():
            raise ModelInvalidOutput(
                f"The model's image {each.output} has the value {image.flat[0]:g} everywhere; if that may be, its card "
                "says may_be_constant = true."
            )
        if (each.slope, each.intercept) != (1.0, 0.0):
            image = image * np.float32(each.slope) + np.float32(each.intercept)
        yield each.output, image


def _measured(each: MapCard, image: NDArray[np.float32], body: Inside, card: ModelCard, named_by: str) -> Map:
    inside = body.values_of(image).astype(np.float64)
    said = (
        (codes.MEAN, inside.mean()),
        (codes.DEVIATION, inside.std()),
        (codes.MINIMUM, inside.min()),
        (codes.MAXIMUM, inside.max()),
    )
    low, high = (float(value) for value in np.percentile(inside, _NEARLY_ALL))
    return Map(
        output=each.output,
        label=each.label,
        quantity=each.quantity,
        unit=each.unit,
        derivation=each.derivation,
        tracking_uid=result_uid(named_by, f"track/{card.name}/{each.output}"),
        measurements=tuple(
            Measurement(each.quantity, float(f"{value:.{_DIGITS}g}"), each.unit, how) for how, value in said
        ),
        window=each.window or ((low + high) / 2, max(high - low, np.finfo(np.float32).tiny.item())),
    )
