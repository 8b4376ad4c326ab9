"""What a bundle takes and gives, read from its files without running a line of it.

The layout is that of MONAI's bundle specification. Metadata in the wild leaves out or misspells much of it: what is not
said is looked for in the configuration, and what cannot be found is named. torch and MONAI are not needed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ai.contract import BundleError
from ai.interface import RETURNED, Gives, Input, Output, images_among, otherwise
from ai.landmarks import point_names
from ai.obstacles import left_out_of, obstacles_of
from ai.registration_form import FIELD, RegistrationForm

CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
WEIGHTS = ("model.pt", "model.ts", "model.pt2", "model.onnx")
LOADERS = ("LoadImaged", "LoadImageD", "LoadImageDict", "LoadImage")
_MODALITIES = {"MRI": "MR", "MAMMOGRAM": "MG", "MAMMOGRAPHY": "MG", "X-RAY": "DX", "XRAY": "DX", "PET": "PT"}
_BACKGROUND = ("background", "bg")
_SEGMENTATIONS = ("segmentation", "labels", "label", "mask")
_CLASSES = ("classes", "classification", "probabilities")
_POINTS = ("points", "landmarks", "keypoints")
_COLOURS = ("r", "g", "b")
_IMAGES = ("image", "magnitude", "hounsfield", "distance", "uncertainty", "entropy", "variance")
_TRUTHS = ("label", "labels", "seg", "segmentation", "mask", "box", "boxes")
_SPECIFIED = ("required_packages_version", "optional_packages_version")
_MODULES = {"pytorch-ignite": "ignite", "scikit-image": "skimage", "pyyaml": "yaml", "opencv-python": "cv2"}


@dataclass(frozen=True, slots=True)
class Understanding:
    """What is known of a bundle.

    Attributes
    ----------
    configuration : str
        Its inference configuration, inside the bundle; empty where it has none.
    weights : str
        Its weights, inside the bundle; empty where it has none.
    packages : mapping of str to str
        Python packages that it asks for beside PyTorch and MONAI, with their versions.
    missing : tuple of str
        Those of them that are not installed.
    obstacles : tuple of str
        Why this node cannot run it, each a sentence without its full stop; empty when it can.
    command : str
        The command line of a model that is a program; empty for a bundle.
    left_out : tuple of str
        What it gives beside that and the node does not return.
    """

    name: str
    version: str
    task: str
    description: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    configuration: str
    weights: str
    packages: Mapping[str, str]
    missing: tuple[str, ...]
    obstacles: tuple[str, ...]
    command: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def results(self) -> tuple[str, ...]:
        """What the PACS gets, in words."""
        kinds = {output.gives for output in self.outputs}
        said = []
        if kinds & {Gives.SEGMENTATION, Gives.DETECTION}:
            said.append("SEG: one segment for each output that is found")
        for form in (name for output in self.outputs if output.gives is Gives.REGISTRATION for name in output.names):
            kind = "Deformable Spatial Registration" if form.startswith(FIELD) else "Spatial Registration"
            said.append(f"REG ({kind}): where what is in the fixed series lies in the moving one")
        for name in (name for output in images_among(self.outputs) for name in output.names):
            said.append(f"PM: the image {name}, on the grid of what it looked at")
        if kinds & set(RETURNED):
            said.append("SR: what was found, measured, in codes")
        return tuple(said)


def understand(bundle: Path) -> Understanding:
    """Read what a bundle takes and gives.

    Parameters
    ----------
    bundle : pathlib.Path
        The bundle's root.

    Raises
    ------
    BundleError
        If the folder is no bundle, or its files cannot be read.
    """
    metadata = _metadata(bundle)
    configuration = next((name for name in CONFIGURATIONS if (bundle / "configs" / name).is_file()), "")
    config = _read(bundle / "configs" / configuration) if configuration else {}
    data_format = metadata.get("network_data_format")
    data_format = data_format if isinstance(data_format, Mapping) else {}
    inputs = tuple(_inputs(data_format.get("inputs"), config))
    outputs = tuple(_outputs(data_format.get("outputs"), metadata))
    if any(output.gives is Gives.REGISTRATION for output in outputs) and len(inputs) == len(inputs[0].keys):
        inputs = inputs[:1]  # its metadata describes the two images one by one, its loader reads both
    packages = dict(_packages(metadata))
    missing = tuple(name for name in packages if not _is_installed(name))
    return Understanding(
        name=str(metadata.get("name") or bundle.name),
        version=str(metadata["version"]),
        task=str(metadata.get("task", "")),
        description=str(metadata.get("description", "")),
        inputs=inputs,
        outputs=outputs,
        configuration=f"configs/{configuration}" if configuration else "",
        weights=next((f"models/{name}" for name in WEIGHTS if (bundle / "models" / name).is_file()), ""),
        packages=packages,
        missing=missing,
        obstacles=tuple(obstacles_of(config, data_format, inputs, outputs)),
        left_out=left_out_of(outputs),
    )


def _metadata(bundle: Path) -> Mapping[str, Any]:
    file = bundle / "configs" / "metadata.json"
    if not file.is_file():
        raise BundleError(f"{bundle} is not a MONAI bundle: it has no configs/metadata.json.")
    metadata = _read(file)
    if not metadata.get("version"):
        raise BundleError("configs/metadata.json gives no version.")
    return metadata


def _read(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BundleError(f"configs/{file.name} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise BundleError(f"configs/{file.name} is not a table.")
    return found


def _inputs(described: Any, config: Mapping[str, Any]) -> Iterator[Input]:
    spacing_mm, orientation = _grid(config)
    keys = _keys(config)
    for name, said in described.items() if isinstance(described, Mapping) else ():
        said = said if isinstance(said, Mapping) else {}
        count = _whole(said.get("num_channels"), 1)
        named = _channel_names(said.get("channel_def"))
        is_named = len(named) == count
        channels = tuple(named.values()) if is_named else tuple(f"channel {n}" for n in range(count))
        modality = str(said.get("modality", "")).strip().upper()
        shape = said.get("spatial_shape")
        shown = len(shape) if isinstance(shape, list) and shape else 3
        whole = 3 if _target(config.get("inferer")) == "SliceInferer" else shown
        colour = tuple(channel.strip().lower()[:1] for channel in channels) == _COLOURS
        yield Input(
            name=str(name),
            channels=channels,
            dimensions=whole,
            modality="" if modality in ("NONE", "REGULAR", "N/A") else _MODALITIES.get(modality, modality),
            spacing_mm=spacing_mm,
            orientation=orientation,
            keys=keys,
            roles=keys if len(keys) > 1 else channels if is_named and count > 1 and not colour else (),
        )


def is_truth(key: object) -> bool:
    """Whether a name is that of what a reader drew: there when a bundle is trained, not when it is asked."""
    return str(key).lower() in _TRUTHS


def _keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Under which names the bundle's transforms expect images: what its loader would have read."""
    keys: Any = "image"
    for item in _items({key: value for key, value in config.items() if key != "evaluator"}):
        if _target(item) in LOADERS:
            keys = _resolved(item.get("keys", "image"), config)
            break
    names = [keys] if isinstance(keys, str) else list(keys) if isinstance(keys, list) else ["image"]
    found = tuple(_common(str(_resolved(name, config))) for name in names)
    return tuple(name for name in found if not is_truth(name)) or ("image",)


def _common(name: str) -> str:
    """MONAI's own names for what nearly every bundle has: ``$monai.utils.CommonKeys.IMAGE``."""
    return name.rsplit(".", 1)[-1].lower() if name.startswith("$") and "CommonKeys." in name else name


def _outputs(described: Any, metadata: Mapping[str, Any]) -> Iterator[Output]:
    for name, said in described.items() if isinstance(described, Mapping) else ():
        said = said if isinstance(said, Mapping) else {}
        names = tuple(label for label in _channel_names(said.get("channel_def")).values() if not _is_background(label))
        detects = said.get("detects")
        if isinstance(detects, list):
            names = tuple(map(str, detects))
        gives = _gives(said)
        if (form := RegistrationForm.of(str(name), said)) is not None:
            gives, names = Gives.REGISTRATION, (str(form),)
        if gives is Gives.CLASSIFICATION:  # what is no circle, triangle or square is an answer as well
            names = tuple(_channel_names(said.get("channel_def")).values())
            names = (*names, otherwise(names[0])) if len(names) == 1 else names  # a share of one: there, or not
        if gives is Gives.POINTS:
            names = point_names(said, metadata)
        if gives is Gives.IMAGE:
            names = _image_names(str(name), said)
        if not names and gives is Gives.SEGMENTATION:
            names = tuple(unnamed(said).values())
        if not names and gives in (Gives.DETECTION, Gives.CLASSIFICATION, Gives.REGRESSION):
            names = tuple(f"label {n}" for n in range(max(1, _whole(said.get("num_channels"), 1))))
        told = str(said.get("modality", "")) or str(said.get("format", ""))
        yield Output(str(name), gives, names, form.problem if form else "", told)


def _image_names(name: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    """One for each channel; a single one that metadata calls nothing but ``image`` has the name of the output."""
    channels = tuple(_channel_names(said.get("channel_def")).values())
    count = max(1, _whole(said.get("num_channels"), len(channels)))
    if len(channels) == count and set(channels) != {"image"}:
        return channels
    return (name,) if count == 1 else tuple(f"{name} {n}" for n in range(1, count + 1))


def unnamed(output: Mapping[str, Any]) -> dict[int, str]:
    """Names for the channels of an output that gives them none: ``label 1`` and so on, after a background."""
    return {n: f"label {n}" for n in range(1, _whole(output.get("num_channels"), 0))}


def _gives(said: Mapping[str, Any]) -> Gives:
    kind, form = (str(said.get(key, "")).lower() for key in ("type", "format"))
    shape = said.get("spatial_shape")
    flat = isinstance(shape, list) and len(shape) == 2 and shape[0] in (1, "1")
    if form == "instances" or kind == "object" or "box" in form:
        return Gives.DETECTION
    if form in _CLASSES or kind in _CLASSES or (form in _SEGMENTATIONS and flat):
        return Gives.CLASSIFICATION
    if form in _SEGMENTATIONS:
        return Gives.SEGMENTATION
    if form in _POINTS:
        return Gives.POINTS
    if form == "regression" and not _is_dense(shape):
        return Gives.REGRESSION
    return Gives.IMAGE if kind in ("image", "feature") or form in (*_IMAGES, "regression") else Gives.UNKNOWN


def _is_dense(shape: Any) -> bool:
    """Whether there is a value for each voxel: sizes along two axes or three, which are not all 1."""
    return isinstance(shape, list) and len(shape) in (2, 3) and shape[0] not in (1, "1") and shape[-1] not in (1, "1")


def _channel_names(defined: Any) -> dict[int, str]:
    """Names by number. Found in the wild: numbers as text or as numbers, a list, nothing, names that are no text."""
    if isinstance(defined, list):
        return {n: str(name) for n, name in enumerate(defined)}
    if not isinstance(defined, Mapping):
        return {}
    return {_whole(number, n): str(name) for n, (number, name) in enumerate(defined.items())}


def _is_background(label: str) -> bool:
    return label.strip(" _").lower() in _BACKGROUND


def _whole(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def _grid(config: Mapping[str, Any]) -> tuple[tuple[float, ...], str]:
    """What the bundle's own transforms resample and turn to."""
    spacing_mm: tuple[float, ...] = ()
    orientation = ""
    for item in _items({key: value for key, value in config.items() if key not in ("dataset", "evaluator")}):
        kind = _target(item)
        if kind in ("Spacingd", "SpacingD") and not spacing_mm:
            pixdim = _resolved(item.get("pixdim"), config)
            if isinstance(pixdim, list) and all(isinstance(mm, int | float) for mm in pixdim):
                spacing_mm = tuple(float(mm) for mm in pixdim)
        if kind in ("Orientationd", "OrientationD") and not orientation:
            orientation = str(_resolved(item.get("axcodes"), config) or "")
    return spacing_mm, orientation


def _resolved(value: Any, config: Mapping[str, Any]) -> Any:
    """Follow a plain reference, ``@pixdim``; expressions are left alone."""
    if isinstance(value, str) and value.startswith("@"):
        return config.get(value[1:])
    return value


def _target(item: Any) -> str:
    return str(item.get("_target_", "")).split(".")[-1] if isinstance(item, Mapping) else ""


def _items(config: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(config, Mapping):
        yield config
    if isinstance(config, Mapping | list):
        for part in config.values() if isinstance(config, Mapping) else config:
            yield from _items(part)


def _packages(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _SPECIFIED:
        listed = metadata.get(key)
        for name, version in listed.items() if isinstance(listed, Mapping) else ():
            yield str(name), str(version)


def _is_installed(package: str) -> bool:
    module = _MODULES.get(package.lower(), package.replace("-", "_"))
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
