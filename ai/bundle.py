"""Runs a MONAI bundle on an array: its own transforms, network and inferer, without its loader and its saver.

The layout is that of the MONAI Model Zoo: ``configs/metadata.json``, ``configs/inference.json`` (or ``.yaml``) and
``models/model.pt``. A bundle's ``$`` expressions are code; whoever installs a bundle has to trust it. This module alone
speaks RAS, the space that MONAI works in; everything outside is DICOM patient space, LPS.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import AsDiscreted, Invertd
from numpy.typing import NDArray

from ai.contract import (
    BundleError,
    LabelMap,
    ModelCrashed,
    ModelError,
    ModelInvalidOutput,
    ModelOutOfMemory,
    Prediction,
    Volume,
)
from ai.detections import detections_in, instances_key
from ai.outputs import label_maps, output_key, output_names, probabilities
from ai.regrid import to_grid

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LOADERS = ("LoadImaged", "LoadImageD", "LoadImageDict", "LoadImage")
_NETWORK_KEYS = ("network", "network_def", "net")
_PREPROCESSING_KEYS = ("preprocessing", "transforms", "pre_transforms")
_POSTPROCESSING_KEYS = ("postprocessing", "post_transforms")
_CUDA = re.compile(r"torch\.device\(\s*(['\"])cuda(:\d+)?\1\s*\)")
_ARRAYS: list[Any] = [  # what a pickled numpy array names, in numpy 1 and 2: nothing of it does more than hold numbers
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
    *((np.zeros(1).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_FORBIDDEN = " (a model may open no connection, start no process and read no file outside its bundle)"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle with its weights in memory, ready to answer.

    Parameters
    ----------
    name, version : str
        From ``metadata.json``.
    outputs : tuple of str
        Names of the outputs, without the background.
    device : torch.device
        Where the network lies.
    """

    name: str
    version: str
    outputs: tuple[str, ...]
    device: torch.device
    _channels: Mapping[int, str]
    _network: torch.nn.Module
    _inferer: Callable[..., Any]
    _preprocessing: Compose
    _postprocessing: Compose
    _image_key: str
    _output_key: str
    _instances_key: str | None

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Bundle:
        """Read a bundle from its folder.

        Parameters
        ----------
        path : pathlib.Path
            The bundle's root.
        device : str
            A torch device: ``cpu``, ``cuda:0``.

        Raises
        ------
        BundleError
            If a file is missing, or configuration, weights and metadata do not fit together.
        """
        root = path.resolve()
        metadata = _metadata(root)
        chosen = torch.device(device)
        try:
            with _weights_only(chosen):
                parser = _parser(root, device)
                channels = output_names(metadata)
                image_key = _image_key(parser)
                preprocessing = _compose(parser, _PREPROCESSING_KEYS)
                postprocessing = _compose(parser, _POSTPROCESSING_KEYS)
                if not preprocessing.transforms:  # MONAI refuses to invert nothing
                    postprocessing.transforms = tuple(
                        t for t in postprocessing.transforms if not isinstance(t, Invertd)
                    )
                _keep_labels_whole(postprocessing)
                network = _network(parser, root, chosen)
                inferer = parser.get_parsed_content("inferer")
        except ModelError:
            raise
        except Exception as error:  # a configuration is code, so it may fail in any way
            hint = _FORBIDDEN if isinstance(_deepest(error), PermissionError) else ""
            raise BundleError(f"The bundle {root.name} cannot be loaded: {_first_line(error)}{hint}") from error
        names = tuple(channels.values())
        return cls(
            name=str(metadata.get("name", root.name)),
            version=str(metadata["version"]),
            outputs=names,
            device=chosen,
            _channels=channels,
            _network=network.to(chosen).eval(),
            _inferer=inferer,
            _preprocessing=preprocessing,
            _postprocessing=postprocessing,
            _image_key=image_key,
            _output_key=output_key(metadata),
            _instances_key=instances_key(metadata),
        )

    def predict(self, volume: Volume, without: Collection[str] = ()) -> Prediction:
        """Run the model. The same volume gives the same bytes.

        Parameters
        ----------
        volume : Volume
            Any orientation; the bundle's own transforms turn it.
        without : collection of str
            Detections that are not to be run. The bundle's inferer has to have an attribute `without` for it.

        Returns
        -------
        Prediction
            Everything on the grid of `volume`, whether or not the bundle inverts its preprocessing.

        Raises
        ------
        BundleError
            If the bundle cannot leave out what it is told to leave out.
        ModelInvalidOutput
            If the output has NaN, another grid than its input, or values without a name.
        ModelOutOfMemory, ModelCrashed
            If the bundle's code fails.
        """
        torch.manual_seed(0)
        self._leave_out(without)
        clock = _Clock()
        with torch.inference_mode(), _explained(self.name):
            source = _meta_tensor(volume)
            grid = source.affine.numpy(), tuple(volume.array.shape[::-1])
            data: dict[str, Any] = self._preprocessing({self._image_key: source})
            del source
            image = data[self._image_key]
            clock.lap("preprocess")
            data["pred"] = _as_images(self._inferer(image.as_tensor()[None].to(self.device), self._network), image)
            clock.lap("infer")
            data = self._postprocessing(data)
            fed = _on_source_grid(_output(data, self._output_key), image, *grid)
            maps = label_maps(fed, self._channels)
            likely = probabilities(fed, self._channels)
            detected = detections_in(data, self._instances_key, image, grid, without)
            clock.lap("postprocess")
        back = tuple(LabelMap(_slices_first(array), names) for array, names in maps)
        return Prediction(
            back,
            clock.steps_s,
            str(self.device),
            detected.found,
            None if detected.instances is None else _slices_first(detected.instances),
            None if detected.saliency is None else _slices_first(detected.saliency),
            {name: _slices_first(array) for name, array in likely.items()},
        )

    def _leave_out(self, without: Collection[str]) -> None:
        if hasattr(self._inferer, "without"):
            self._inferer.without = frozenset(without)
        elif without:
            raise BundleError(f"The bundle {self.name} cannot leave out {', '.join(sorted(without))}.")


@contextmanager
def _weights_only(device: torch.device) -> Iterator[None]:
    """Load what a bundle itself loads onto our device, and never unpickle anything but tensors and arrays."""
    load = torch.load

    def tamed(file: Any, *args: Any, **options: Any) -> Any:
        return load(file, **{**options, "map_location": device, "weights_only": True})

    torch.load = tamed  # type: ignore[assignment]
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            yield
    finally:
        torch.load = load


def network_of(path: Path, device: str = "cpu") -> torch.nn.Module:
    """Build the network of a bundle as its configuration defines it, with the weights that it starts with.

    Raises
    ------
    BundleError
        If the configuration cannot be read or defines none.
    """
    with _weights_only(torch.device(device)):
        network = _content(_parser(path.resolve(), device), _NETWORK_KEYS)
    if not isinstance(network, torch.nn.Module):
        raise BundleError(f"The bundle {path.name} defines no network.")
    return network


class _Clock:
    def __init__(self) -> None:
        self.steps_s: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.steps_s[name], self._last = now - self._last, now


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever the bundle's code raises into a sentence of ours."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        cause = _deepest(error)  # MONAI wraps what its transforms raise
        if isinstance(cause, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(cause):
            raise ModelOutOfMemory(f"The model {name} asked for more memory than it may have.") from error
        hint = _FORBIDDEN if isinstance(cause, PermissionError) else ""
        raise ModelCrashed(
            f"The model {name} failed with {type(cause).__name__}: {_first_line(error)}{hint}"
        ) from error


def _deepest(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    deepest = _deepest(error)
    return (str(deepest).strip() or type(deepest).__name__).splitlines()[0][:300]


def _metadata(root: Path) -> Mapping[str, Any]:
    try:
        metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"The folder {root.name} is not a bundle: configs/metadata.json cannot be read.") from error
    except ValueError as error:
        raise BundleError(f"configs/metadata.json of {root.name} is not JSON: {error}") from error
    if not isinstance(metadata, dict) or "version" not in metadata:
        raise BundleError(f"configs/metadata.json of {root.name} gives no version.")
    return metadata


def _parser(root: Path, device: str) -> ConfigParser:
    configs = [root / "configs" / f"inference.{kind}" for kind in ("json", "yaml", "yml")]
    found = next((config for config in configs if config.is_file()), None)
    if found is None:
        raise BundleError(f"The bundle {root.name} has no configs/inference.json or .yaml.")
    if str(root) not in sys.path:
        sys.path.append(str(root))  # a bundle may bring its own `scripts` package
    parser = ConfigParser()
    parser.read_config(str(found))
    parser.read_meta(str(root / "configs" / "metadata.json"))
    parser["bundle_root"] = str(root)
    parser["device"] = f"$__import__('torch').device({device!r})"
    _switch_off(parser)
    _bring_home(parser.get(), f"torch.device({device!r})")
    return parser


def _content(parser: ConfigParser, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if key in parser:
            return parser.get_parsed_content(key)
    raise BundleError(f"The bundle's configs/inference file has none of the keys {', '.join(keys)}.")


def _compose(parser: ConfigParser, keys: tuple[str, ...]) -> Compose:
    if not any(key in parser for key in keys):
        return Compose([])
    content = _content(parser, keys)
    return content if isinstance(content, Compose) else Compose(content)


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


def _image_key(parser: ConfigParser) -> str:
    """The name under which the bundle's transforms expect the image: what its loader would have read."""
    loaders = [item for item in _items(parser.get()) if str(item.get("_target_", "")).split(".")[-1] in _LOADERS]
    keys = loaders[0].get("keys", "image") if loaders else "image"
    names = [keys] if isinstance(keys, str) else list(keys)
    if len(names) != 1:
        raise BundleError(f"The bundle reads {len(names)} images ({', '.join(map(str, names))}); the node gives one.")
    name = str(names[0])
    return str(parser.get_parsed_content(name[1:])) if name.startswith("@") else name


def _switch_off(parser: ConfigParser) -> None:
    """Keep the transforms that read and write files from being made; the tensor we feed has its channel already."""
    for item in _items(parser.get()):
        name = str(item.get("_target_", "")).split(".")[-1]
        if name in _LOADERS or name.startswith(("EnsureChannelFirst", "SaveImage")):
            item["_disabled_"] = True


def _bring_home(config: Any, device: str) -> None:
    """Where a configuration names a GPU outright, it means the device that the node gives it."""
    places = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in list(places):
        if isinstance(value, str) and value.startswith("$"):
            config[key] = _CUDA.sub(device, value)
        else:
            _bring_home(value, device)


def _items(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list):
        for part in config.values() if isinstance(config, dict) else config:
            yield from _items(part)


def _network(parser: ConfigParser, root: Path, device: torch.device) -> torch.nn.Module:
    """The network of the configuration with its weights; or, where there are no others, the TorchScript program."""
    weights, program = root / "models" / "model.pt", root / "models" / "model.ts"
    if program.is_file() and not weights.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # bundles hold such programs all the same
            return torch.jit.load(str(program), map_location=device)  # type: ignore[no-any-return, no-untyped-call]
    network: torch.nn.Module = _content(parser, _NETWORK_KEYS)
    _load_weights(network, weights, device)
    return network


def _load_weights(network: torch.nn.Module, path: Path, device: torch.device) -> None:
    if not path.is_file():
        raise BundleError("The bundle has no models/model.pt and no models/model.ts.")
    state = torch.load(path, map_location=device, weights_only=True)
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    network.load_state_dict(state)


def _meta_tensor(volume: Volume) -> MetaTensor:
    """The volume as MONAI's reader would give it: channel, columns, rows, slices, with a RAS affine."""
    array = torch.from_numpy(volume.array.astype(np.float32)).permute(2, 1, 0)[None]
    affine = _LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    meta = {"original_affine": torch.from_numpy(affine.copy()), "spatial_shape": np.array(array.shape[1:])}
    return MetaTensor(array, affine=torch.from_numpy(affine), meta={**meta, "original_channel_dim": 0, "space": "RAS"})


def _as_images(output: Any, image: MetaTensor) -> Any:
    """The inferer's output, or each map in it, with the geometry of the image it was computed from."""
    if not isinstance(output, Mapping):
        return _as_image(output, image)
    return {key: _as_image(part, image) if isinstance(part, torch.Tensor) else part for key, part in output.items()}


def _as_image(output: Any, image: MetaTensor) -> MetaTensor:
    """The network's output with the geometry of the image it was computed from."""
    if not isinstance(output, torch.Tensor) or output.ndim != 5 or output.shape[0] != 1:
        raise ModelInvalidOutput("The model's output is not one image with channels.")
    if output.shape[2:] != image.shape[1:]:
        raise ModelInvalidOutput(
            f"The model answered with {tuple(output.shape[2:])} voxels to an image of {tuple(image.shape[1:])}."
        )
    pred = output[0].to("cpu")
    if isinstance(pred, MetaTensor):
        pred = pred.as_tensor()
    if not bool(torch.isfinite(pred).all()):
        raise ModelInvalidOutput("The model's output contains NaN or infinity.")
    return MetaTensor(pred, affine=image.affine.clone(), applied_operations=list(image.applied_operations))


def _output(data: Mapping[str, Any], key: str) -> MetaTensor:
    pred = data.get(key)
    if not isinstance(pred, MetaTensor) or pred.ndim != 4:
        raise ModelInvalidOutput("The model's post-processed output is not one image with channels.")
    return pred


def _slices_first(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array.transpose(2, 1, 0))


def _on_source_grid(
    pred: MetaTensor, image: MetaTensor, affine: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """A post-processed map as (channels, columns, rows, slices) of the source."""
    own, array = pred.affine.cpu().numpy().astype(np.float64), pred.as_tensor().cpu().numpy()
    inverted = np.allclose(own, affine, atol=1e-3)
    untouched = np.allclose(own, image.affine.cpu().numpy(), atol=1e-3)
    expected = shape if inverted else tuple(image.shape[1:]) if untouched else array.shape[1:]
    if array.shape[1:] != expected:
        raise ModelInvalidOutput(f"The model's output has {array.shape[1:]} voxels where its grid has {expected}.")
    return array if inverted else to_grid(array, own, affine, shape)
