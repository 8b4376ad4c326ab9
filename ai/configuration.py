"""A bundle's configuration, made ready to be run by the node: no loader, no saver, the node's device.

The layout is that of the MONAI Model Zoo. A bundle's ``$`` expressions are code; whoever installs a bundle has to trust
it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle.config_parser import ConfigParser
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import AsDiscreted, Invertd
from monai.transforms.transform import MapTransform

from ai.contract import BundleError
from ai.understand import LOADERS, is_truth

_PREPROCESSING_KEYS = ("preprocessing", "transforms", "pre_transforms")
_POSTPROCESSING_KEYS = ("postprocessing", "post_transforms")
_CUDA = re.compile(r"torch\.device\(\s*(['\"])cuda(:\d+)?\1\s*\)")
_GONE = {"SwinUNETR": ("img_size",)}  # arguments that MONAI ignored for years and then took away
_RENAMED = {"product": "prod", "cumproduct": "cumprod", "alltrue": "all", "sometrue": "any"}  # in numpy 2


def read_metadata(root: Path) -> Mapping[str, Any]:
    """Read a bundle's ``configs/metadata.json``.

    Raises
    ------
    BundleError
        If it cannot be read, or gives no version.
    """
    try:
        metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"The folder {root.name} is not a bundle: configs/metadata.json cannot be read.") from error
    except ValueError as error:
        raise BundleError(f"configs/metadata.json of {root.name} is not JSON: {error}") from error
    if not isinstance(metadata, dict) or "version" not in metadata:
        raise BundleError(f"configs/metadata.json of {root.name} gives no version.")
    return metadata


def read_configuration(root: Path, device: str, changes: Mapping[str, Any] | None = None) -> ConfigParser:
    """Read a bundle's inference configuration, with the device of the node and without loaders and savers.

    Parameters
    ----------
    changes : mapping of str to Any, optional
        Values in place of the configuration's own, as ``python -m monai.bundle run --KEY VALUE`` takes them.

    Raises
    ------
    BundleError
        If there is none, or it has no such value.
    """
    configs = [root / "configs" / f"inference.{kind}" for kind in ("json", "yaml", "yml")]
    found = next((config for config in configs if config.is_file()), None)
    if found is None:
        raise BundleError(f"The bundle {root.name} has no configs/inference.json or .yaml.")
    if str(root) not in sys.path:
        sys.path.append(str(root))  # a bundle may bring its own `scripts` package
    _know_old_names()
    parser = ConfigParser()
    parser.read_config(str(found))
    parser.read_meta(str(root / "configs" / "metadata.json"))
    for key, value in (changes or {}).items():
        if key not in parser:
            raise BundleError(f"configs/{found.name} has no {key}, which the card changes.")
        parser[key] = value
    parser["bundle_root"] = str(root)
    parser["device"] = f"$__import__('torch').device({device!r})"
    for item in items(parser.get()):
        _adapt(item)
    _bring_home(parser.get(), f"torch.device({device!r})")
    return parser


def content(parser: ConfigParser, keys: tuple[str, ...]) -> Any:
    """Make the first of some parts that a configuration has.

    Raises
    ------
    BundleError
        If it has none of them.
    """
    for key in keys:
        if key in parser:
            return parser.get_parsed_content(key)
    raise BundleError(f"The bundle's configs/inference file has none of the keys {', '.join(keys)}.")


def transforms_of(parser: ConfigParser) -> tuple[Compose, Compose]:
    """Make what a bundle does before and after its network."""
    before, after = _compose(parser, _PREPROCESSING_KEYS), _compose(parser, _POSTPROCESSING_KEYS)
    if not before.transforms:  # MONAI refuses to invert nothing
        after.transforms = tuple(t for t in after.transforms if not isinstance(t, Invertd))
    _share_steps(before, after)
    _keep_labels_whole(after)
    for transform in (*before.transforms, *after.transforms):
        if isinstance(transform, MapTransform) and any(map(is_truth, getattr(transform, "keys", ()))):
            transform.allow_missing_keys = True  # what a reader once drew is not there when a model is asked
    return before, after


def items(config: Any) -> Iterator[dict[str, Any]]:
    """Every table in a configuration, those in tables and lists as well."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list):
        for part in config.values() if isinstance(config, dict) else config:
            yield from items(part)


def target(item: Mapping[str, Any]) -> str:
    """Name of the class or function that a table of a configuration makes; empty where it makes none."""
    return str(item.get("_target_", "")).split(".")[-1]


def _compose(parser: ConfigParser, keys: tuple[str, ...]) -> Compose:
    if not any(key in parser for key in keys):
        return Compose([])
    made = content(parser, keys)
    return made if isinstance(made, Compose) else Compose(made)


def _share_steps(before: Compose, after: Compose) -> None:
    """Where a bundle inverts a copy of its transforms, invert those themselves: MONAI knows a transform by its id."""
    kinds = [type(transform) for transform in before.transforms]
    for transform in after.transforms:
        if isinstance(transform, Invertd) and isinstance(transform.transform, Compose):
            copied = transform.transform
            if copied is not before and [type(each) for each in copied.transforms] == kinds:
                transform.transform = before


def _keep_labels_whole(postprocessing: Compose) -> None:
    """Where labels were decided before the grid is inverted, the inverse takes the nearest: between 1 and 3 is no 2."""
    decided: set[str] = set()
    for transform in postprocessing.transforms:
        if isinstance(transform, AsDiscreted):
            decided |= {str(key) for key in transform.keys}
        elif isinstance(transform, Invertd):
            transform.nearest_interp = tuple(
                nearest or str(key) in decided
                for key, nearest in zip(transform.keys, transform.nearest_interp, strict=True)
            )


def array_axes(parser: ConfigParser) -> int | None:
    """Count the axes that an image has for a bundle whose transforms take the image itself, and no table of images.

    Returns
    -------
    int or None
        0 where its channels come first; else as many as its reader would give, before a transform makes a channel of
        one of them: 4 for slices through time. None for transforms that take a table, as nearly all do.
    """
    steps = list(items({key: parser[key] for key in _PREPROCESSING_KEYS if key in parser}))
    loader = next((step for step in steps if target(step) == "LoadImage"), None)
    if loader is None:
        return None
    if loader.get("ensure_channel_first") or any(target(step).startswith("EnsureChannelFirst") for step in steps):
        return 0
    turned = (step.get("indices") for step in steps if target(step) == "Transpose")
    return max((len(indices) for indices in turned if isinstance(indices, list)), default=0)


def _know_old_names() -> None:
    """Keep names that numpy 2 took away, for the bundles of its day that call them."""
    for old, new in _RENAMED.items():
        if not hasattr(np, old):
            setattr(np, old, getattr(np, new))


def _adapt(item: dict[str, Any]) -> None:
    """Keep what reads and writes files from being made, and what would be downloaded from being asked for."""
    name = target(item)
    if name in LOADERS or name.startswith(("EnsureChannelFirst", "Save")) or "Saver" in name:
        item["_disabled_"] = True  # the tensors that we feed have their channels already
    if item.get("pretrained") is True:
        item["pretrained"] = False  # the bundle brings the weights
    for gone in _GONE.get(name, ()):
        item.pop(gone, None)


def _bring_home(config: Any, device: str) -> None:
    """Where a configuration names a GPU outright, it means the device that the node gives it."""
    places = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in list(places):
        if isinstance(value, str) and value.startswith("$"):
            config[key] = _CUDA.sub(device, value)
        else:
            _bring_home(value, device)
