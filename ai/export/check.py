"""What is wrong with a bundle: each problem with its file, its key and what to do about it.

What the node itself demands of a ``card.toml`` is decided there (``dicom-node check`` asks it); here is checked what
can be without it, and what it cannot check: that the network is there, takes its weights, and answers.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai.codes import UNKNOWN
from ai.contract import BundleError, ModelError, Prediction, Volume
from ai.outputs import output_names

_CARD_TEXTS = ("name", "version", "title", "manufacturer", "summary", "training")
_SEGMENT_TEXTS = ("output", "label")
_CODE_TEXTS = ("value", "scheme", "meaning")
_METADATA = (
    "version",
    "monai_version",
    "pytorch_version",
    "task",
    "description",
    "network_data_format",
    "intended_use",
)
_SENTENCE = "not for clinical use"
_VOXELS = 32


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    file : str
        Inside the bundle.
    key : str
        Where in the file; empty for the file as a whole.
    what : str
        What is wrong and what to do.
    """

    file: str
    key: str
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.what) if part)


def check_bundle(
    bundle: Path, *, device: str = "cpu", run: bool = True, say: Callable[[str], None] = print
) -> list[Problem]:
    """Look for everything that is wrong.

    Parameters
    ----------
    bundle : pathlib.Path
        The bundle's folder.
    device : str
        Where to run it.
    run : bool
        Load the weights and run it once, on a generated volume, as the node would.
    say : callable
        Told what was looked at.

    Returns
    -------
    list of Problem
        Empty for a bundle with which nothing is wrong.
    """
    problems = list(_structure(bundle))
    metadata = _read(bundle, "configs/metadata.json", json.loads, problems)
    card = _read(bundle, "card.toml", tomllib.loads, problems)
    if metadata is not None:
        problems += _metadata(metadata)
    if card is not None:
        problems += _card(card)
    if metadata is not None and card is not None:
        problems += _consistent(metadata, card)
    problems += _documents(bundle)
    if run and metadata is not None and not any(problem.file.startswith(("configs", "models")) for problem in problems):
        problems += _answers(bundle, metadata, device, say)
    return problems


def _structure(bundle: Path) -> Iterable[Problem]:
    if not any((bundle / "configs" / f"inference.{kind}").is_file() for kind in ("json", "yaml", "yml")):
        yield Problem("configs/inference.json", "", "is not there; it describes network, transforms and inferer")
    wanted = {
        "configs/metadata.json": "it names the outputs",
        "models/model.pt": "train a network and export it, or copy its weights there",
        "card.toml": "it says what the node accepts and in which codes it answers; `bundle new` writes one to fill in",
        "docs/README.md": "say there what the model was trained on and how well it does",
        "LICENSE": "say there under which terms code and weights may be used",
    }
    for name, why in wanted.items():
        if not (bundle / name).is_file():
            yield Problem(name, "", f"is not there; {why}")


def _read(bundle: Path, name: str, parse: Callable[[str], Any], problems: list[Problem]) -> dict[str, Any] | None:
    path = bundle / name
    if not path.is_file():
        return None
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        problems.append(Problem(name, "", f"cannot be read: {error}"))
        return None
    if not isinstance(found, dict):
        problems.append(Problem(name, "", "is not a table"))
        return None
    return found


def _metadata(metadata: Mapping[str, Any]) -> Iterable[Problem]:
    file = "configs/metadata.json"
    for key in _METADATA:
        if not metadata.get(key):
            yield Problem(file, key, "is missing; the MONAI Model Zoo asks for it")
    changelog = metadata.get("changelog")
    if not isinstance(changelog, dict) or metadata.get("version") not in changelog:
        yield Problem(file, "changelog", f"does not say what came with version {metadata.get('version')}")
    formats = metadata.get("network_data_format")
    inputs = formats.get("inputs", {}) if isinstance(formats, dict) else {}
    if not isinstance(inputs, dict) or not inputs:
        yield Problem(file, "network_data_format.inputs", "is missing; it describes the image")
    for name, value in inputs.items() if isinstance(inputs, dict) else ():
        if not isinstance(value, dict) or not value.get("modality") or not value.get("num_channels"):
            yield Problem(file, f"network_data_format.inputs.{name}", "needs modality and num_channels")
    try:
        output_names(metadata)
    except BundleError as error:
        yield Problem(file, "network_data_format.outputs", str(error))


def _card(card: Mapping[str, Any]) -> Iterable[Problem]:
    file = "card.toml"
    yield from _texts(card, _CARD_TEXTS, file, "")
    training = card.get("training")
    if isinstance(training, str) and _SENTENCE not in training.lower():
        yield Problem(file, "training", f"has to say {_SENTENCE!r}: it goes into every SEG and SR")
    timeout = card.get("timeout_s")
    if not isinstance(timeout, int | float) or timeout <= 0:
        yield Problem(file, "timeout_s", "seconds are needed, after which an attempt is killed")
    accepts = card.get("accepts")
    if not isinstance(accepts, dict) or not accepts.get("modality"):
        yield Problem(file, "accepts.modality", 'say which DICOM modalities the model was made for, e.g. ["CT"]')
    if not any(_tables(card)):
        yield Problem(file, "segments", "there is none: each output needs one of [[segments]] or [[detections]]")
    for where, segment in _tables(card):
        yield from _texts(segment, _SEGMENT_TEXTS, file, f"{where}.")
        for key in ("category", "type", "laterality", "region"):
            if key in segment or key in ("category", "type"):
                code = segment.get(key)
                if not isinstance(code, dict):
                    yield Problem(file, f"{where}.{key}", "a code is needed: value, scheme and meaning")
                else:
                    yield from _texts(code, _CODE_TEXTS, file, f"{where}.{key}.")


def _tables(card: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What the card says of each output, with its key."""
    for kind in ("segments", "detections"):
        found = card.get(kind)
        for number, table in enumerate(found if isinstance(found, list) else []):
            if isinstance(table, dict):
                yield f"{kind}.{number}", table


def _texts(table: Mapping[str, Any], keys: Iterable[str], file: str, where: str) -> Iterable[Problem]:
    for key in keys:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            yield Problem(file, f"{where}{key}", "text is needed")
        elif UNKNOWN in value:
            yield Problem(file, f"{where}{key}", "is still to be filled in")
        elif key in ("title", "label", "meaning", "name", "manufacturer") and len(value) > 64:
            yield Problem(file, f"{where}{key}", f"has {len(value)} characters where DICOM allows 64 (VR LO)")
        elif key in ("value", "scheme") and len(value) > 16:
            yield Problem(file, f"{where}{key}", f"has {len(value)} characters where DICOM allows 16 (VR SH)")


def _consistent(metadata: Mapping[str, Any], card: Mapping[str, Any]) -> Iterable[Problem]:
    if card.get("version") != metadata.get("version"):
        yield Problem(
            "card.toml", "version", f"is {card.get('version')!r}; metadata.json says {metadata.get('version')!r}"
        )
    known = _known_outputs(metadata)
    seen: set[object] = set()
    for where, table in _tables(card):
        name = table.get("output")
        if known and name not in known:
            there = ", ".join(sorted(known))
            yield Problem("card.toml", f"{where}.output", f"the bundle has no output {name!r}; it has {there}")
        if name in seen:
            yield Problem("card.toml", f"{where}.output", f"{name!r} is used twice")
        seen.add(name)


def _known_outputs(metadata: Mapping[str, Any]) -> set[str]:
    """What a bundle answers with: its label maps' names, and what it detects one by one."""
    try:
        outputs = metadata["network_data_format"]["outputs"].values()
        named = {str(name) for output in outputs for name in output.get("channel_def", {}).values()}
        return named | {str(name) for output in outputs for name in output.get("detects", ())}
    except (KeyError, TypeError, AttributeError):
        return set()


def _documents(bundle: Path) -> Iterable[Problem]:
    readme, licence = bundle / "docs" / "README.md", bundle / "LICENSE"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        if _SENTENCE not in text.lower():
            yield Problem("docs/README.md", "", f"has to say {_SENTENCE!r}")
        if "to be filled in" in text.lower():
            yield Problem("docs/README.md", "", "something is still to be filled in")
    if licence.is_file() and "No licence has been chosen" in licence.read_text(encoding="utf-8", errors="replace"):
        yield Problem("LICENSE", "", "no licence has been chosen yet")


def _answers(bundle: Path, metadata: Mapping[str, Any], device: str, say: Callable[[str], None]) -> list[Problem]:
    """Run the bundle as the node would: twice, for the same volume has to give the same answer."""
    from ai.bundle import Bundle

    if any(output.get("type") == "probabilities" for output in metadata["network_data_format"]["outputs"].values()):
        return _answers_alone(bundle, metadata, device, say)
    try:
        loaded = Bundle.load(bundle, device)
        volume = generated_volume()
        first, second = loaded.predict(volume), loaded.predict(volume)
    except ModelError as error:
        return [Problem("configs/inference.json", "", str(error))]
    seconds = sum(first.steps_s.values())
    say(f"answered {', '.join(loaded.outputs)} on a generated volume of {_VOXELS}³ voxels in {seconds:.1f} s")
    if not _same(first, second):
        return [
            Problem(
                "configs/inference.json",
                "",
                "answers the same volume differently the second time; remove what is random",
            )
        ]
    return []


def _answers_alone(bundle: Path, metadata: Mapping[str, Any], device: str, say: Callable[[str], None]) -> list[Problem]:
    """A network that classes whole images: the node has no object for that yet, so it is run on its own."""
    import torch
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    (image,) = metadata["network_data_format"]["inputs"].values()
    (output,) = metadata["network_data_format"]["outputs"].values()
    try:
        network = parser.get_parsed_content("network_def").to(device).eval()
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", map_location=device, weights_only=True))
        with torch.inference_mode():
            answer = network(torch.zeros(1, image["num_channels"], *image["spatial_shape"], device=device))
    except Exception as error:  # noqa: BLE001  # a configuration is code, so it may fail in any way
        return [Problem("configs/inference.json", "network_def", f"cannot be run: {error}")]
    if tuple(answer.shape) != (1, len(output["channel_def"])):
        named = f"{len(output['channel_def'])} answers are named"
        return [Problem("configs/metadata.json", "network_data_format.outputs", f"{named}, {answer.shape[-1]} given")]
    say(f"answered {tuple(answer.shape)}; the node itself runs no model that classes whole images yet")
    return []


def generated_volume() -> Volume:
    """A ball in noise, on a grid turned against the patient: what a bundle can run on where there is no scan."""
    rng = np.random.default_rng(0)
    away = np.linalg.norm(np.indices((_VOXELS,) * 3) - _VOXELS / 2, axis=0)
    hu = np.where(away < _VOXELS / 3, -700.0, 40.0) + rng.normal(0, 20, away.shape)
    affine = np.array([[0.0, 0, -2, 40], [0, 2, 0, -40], [3, 0, 0, -70], [0, 0, 0, 1]])
    return Volume(hu.astype(np.float32), affine)


def _same(first: Prediction, second: Prediction) -> bool:
    maps = zip(first.label_maps, second.label_maps, strict=True)
    return first.detections == second.detections and all(np.array_equal(a.array, b.array) for a, b in maps)
