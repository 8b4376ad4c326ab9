"""Why a node cannot run a bundle, in plain words: what it asks for that no series has, or what it gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ai.interface import RETURNED, Gives, Input, Output, images_among

_PLANE, _PAIR = 2, 2
_NETWORKS = ("network", "network_def", "net")
_NOISE = ("noise", "latent", "timesteps")
_ASKS_A_PERSON = ("AddLabelAsGuidance", "AddClickSignals")
_GENERATES = (
    "it makes images up, out of noise: it looks at no image of a patient, so there is nothing for a node to send it"
)
_INTERACTIVE = "it waits for clicks or a drawn mark of a person; a node works with nobody beside it"
_RANDOM = (
    "its inference turns or changes what it is shown at random ({name}): the same image would get another answer each "
    "time"
)
_FLAT = "it registers 2-D images; the node registers volumes, for only they have a place in the patient"
_NOT_TWO = (
    "it registers and does not take two images that have names: one of them is the fixed, the other the moving one"
)


def obstacles_of(
    config: Mapping[str, Any], described: Mapping[str, Any], inputs: Sequence[Input], outputs: Sequence[Output]
) -> Iterator[str]:
    """Say why this node cannot run a bundle, each a sentence without its full stop.

    Parameters
    ----------
    config : mapping
        Its inference configuration, empty where it has none.
    described : mapping
        ``network_data_format`` of its metadata, empty where it says nothing.
    """
    if not config:
        yield "it has none of configs/inference.json, configs/inference.yaml, configs/inference.yml"
        return
    if _generates(config, described):
        yield _GENERATES
        return
    if any(transform in str(config) for transform in _ASKS_A_PERSON):
        yield _INTERACTIVE
        return
    if found := re.findall(r"'_target_': '(?:[\w.]*\.)?(Rand[A-Z]\w*)'", str(config)):
        yield _RANDOM.format(name=", ".join(dict.fromkeys(found)))
        return
    if not any(key in config for key in _NETWORKS):
        yield f"its inference configuration has none of the keys {', '.join(_NETWORKS)}"
    if "inferer" not in config:
        yield "its inference configuration has no inferer"
    yield from _of_inputs(inputs)
    yield from _of_outputs(inputs, outputs)


def left_out_of(outputs: Sequence[Output]) -> tuple[str, ...]:
    """Say what of a bundle's answer the node does not return, though it returns the rest of it."""
    images = images_among(outputs)
    dropped = (each for each in outputs if not each.is_returned or (each.gives is Gives.IMAGE and each not in images))
    return tuple(f"{output.name} ({output.gives.value})" for output in dropped)


def _generates(config: Mapping[str, Any], described: Mapping[str, Any]) -> bool:
    inputs = described.get("inputs")
    said = inputs.values() if isinstance(inputs, Mapping) else ()
    words = {str(one.get(key, "")).lower() for one in said if isinstance(one, Mapping) for key in ("type", "format")}
    return bool(words & set(_NOISE)) or "latent_shape" in config


def _of_inputs(inputs: Sequence[Input]) -> Iterator[str]:
    if len(inputs) > 1:
        yield f"it takes {len(inputs)} inputs ({', '.join(each.name for each in inputs)}); the node gives images alone"
    for image in inputs:
        if image.dimensions not in (2, 3):
            yield f"it works on {image.dimensions}-D images"


def _of_outputs(inputs: Sequence[Input], outputs: Sequence[Output]) -> Iterator[str]:
    if not outputs:
        yield "its metadata.json does not say what it gives (network_data_format.outputs)"
    yield from _of_registrations(inputs, outputs)
    if any(output.is_returned for output in outputs):
        return  # what else it gives is left out
    for output in outputs:
        if output.gives in RETURNED:
            yield f"its metadata.json does not name what {output.name} marks (channel_def)"
        else:
            yield f"its metadata.json does not say of what kind its output {output.name} is (type and format)"


def _of_registrations(inputs: Sequence[Input], outputs: Sequence[Output]) -> Iterator[str]:
    """What is missing for a registration to mean something in the patient."""
    for output in outputs:
        if output.gives is not Gives.REGISTRATION:
            continue
        if output.problem:
            yield output.problem
        if any(image.dimensions == _PLANE for image in inputs):
            yield _FLAT
        if [len(image.roles) for image in inputs] != [_PAIR]:
            yield _NOT_TWO
