"""What the numbers in a model's output mean: the names in a bundle's metadata, and labels that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.contract import BundleError, ModelInvalidOutput
from ai.understand import unnamed

_BACKGROUND = ("background", "bg", "_background_")


def output_names(metadata: Mapping[str, Any]) -> dict[int, str]:
    """Names of a bundle's outputs, without its background.

    Parameters
    ----------
    metadata : mapping
        The bundle's ``metadata.json``; ``channel_def`` of the output `output_key` is read, else ``num_channels``.

    Returns
    -------
    dict of int to str
        Channel (or label value) to name. A single channel that is not background marks its voxels with 1.

    Raises
    ------
    BundleError
        If the names are missing, repeated, or numbered with anything but 0 to 255.
    """
    chosen = _outputs(metadata).get(output_key(metadata), {})
    defined = (chosen.get("channel_def") or unnamed(chosen)) if isinstance(chosen, Mapping) else {}
    try:
        numbered = {int(channel): str(name) for channel, name in defined.items()}
    except (AttributeError, ValueError) as error:
        raise BundleError(
            "The channel_def in the bundle's metadata.json is not a table of numbers and names."
        ) from error
    named = {channel: name for channel, name in sorted(numbered.items()) if name.lower() not in _BACKGROUND}
    if not named or len(set(named.values())) != len(named) or not all(0 <= channel < 256 for channel in named):
        raise BundleError("The bundle's metadata.json names no outputs in channel_def, or names one of them twice.")
    return {1: next(iter(named.values()))} if list(numbered) == [0] else named


def output_key(metadata: Mapping[str, Any]) -> str:
    """Name of the output that holds labels: ``pred`` where there is one, else the first of metadata's outputs."""
    outputs = _outputs(metadata)
    return "pred" if "pred" in outputs else next(iter(outputs), "pred")


def label_maps(output: NDArray[np.generic], names: Mapping[int, str]) -> list[tuple[NDArray[np.uint8], dict[int, str]]]:
    """Turn a post-processed output into label maps in which nothing overlaps.

    Parameters
    ----------
    output : numpy.ndarray, shape (channels, a, b, c)
        One channel of labels, or one channel per output: one-hot, overlapping masks, or scores. Scores are decided by
        the largest where channel 0 is a background, else at one half.
    names : mapping of int to str
        From `output_names`.

    Returns
    -------
    list of (numpy.ndarray of uint8, shape (a, b, c), dict of int to str)
        One map, or one for each output if any two overlap.

    Raises
    ------
    ModelInvalidOutput
        If there are NaN, labels without a name, or another number of channels than was declared.
    """
    if np.issubdtype(output.dtype, np.floating) and not np.isfinite(output).all():
        raise ModelInvalidOutput("The model's output contains NaN or infinity.")
    if len(output) == 1:
        return [(_labels(output[0], names), dict(names))]
    if max(names) >= len(output) or len(output) > len(names) + 1:
        raise ModelInvalidOutput(f"The model gave {len(output)} channels; its metadata names {sorted(names)}.")
    if 0 not in names and not _is_binary(output):
        return [(_labels(np.argmax(output, axis=0), names), dict(names))]
    masks = {channel: output[channel] > 0.5 for channel in names}
    if sum(mask.astype(np.uint8) for mask in masks.values()).max() <= 1:
        values = dict(enumerate(names.values(), start=1))
        joined = np.zeros(output.shape[1:], dtype=np.uint8)
        for value, mask in enumerate(masks.values(), start=1):
            joined[mask] = value
        return [(joined, values)]
    return [(mask.astype(np.uint8), {1: names[channel]}) for channel, mask in masks.items()]


def probabilities(output: NDArray[np.generic], names: Mapping[int, str]) -> dict[str, NDArray[np.uint8]]:
    """Take the probabilities out of a post-processed output that `label_maps` takes.

    Parameters
    ----------
    output : numpy.ndarray, shape (channels, a, b, c)
    names : mapping of int to str
        From `output_names`.

    Returns
    -------
    dict of str to numpy.ndarray of uint8, shape (a, b, c)
        0 to 255 for 0 to 1. Empty where the output holds decisions (labels, masks) or scores that are no shares of 1.
    """
    if len(output) == 1 or not np.issubdtype(output.dtype, np.floating) or _is_binary(output):
        return {}
    if output.min() < 0 or output.max() > 1:
        return {}
    return {name: np.rint(255 * output[channel].astype(np.float32)).astype(np.uint8) for channel, name in names.items()}


def values_in(labels: NDArray[np.uint8]) -> set[int]:
    """Values that occur in `labels`, plane by plane: counting all at once would take eight times its memory."""
    counts = np.zeros(256, dtype=np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=256)
    return set(np.flatnonzero(counts).tolist())


def _outputs(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    return outputs if isinstance(outputs, Mapping) else {}


def _labels(values: NDArray[np.generic], names: Mapping[int, str]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    labels = values.astype(np.uint8) if low >= 0 and high <= 255 else np.zeros(values.shape, dtype=np.uint8)
    present = values_in(labels)
    whole = not np.issubdtype(values.dtype, np.floating) or bool((values == labels).all())
    if not whole or low < 0 or high > 255 or not present <= {0, *names}:
        raise ModelInvalidOutput(
            f"The model's labels run from {low:g} to {high:g}; its metadata names only {sorted(names)}."
        )
    return labels


def _is_binary(output: NDArray[np.generic]) -> bool:
    return bool(((output == 0) | (output == 1)).all())
