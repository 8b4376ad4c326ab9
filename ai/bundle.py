"""Runs a MONAI bundle on an array: its own transforms, network and inferer, without its loader and its saver.

The layout is that of the MONAI Model Zoo: ``configs/metadata.json``, ``configs/inference.json`` (or ``.yaml``) and
``models/model.pt``. What it is given is in `ai.feed`, what becomes of its configuration in `ai.configuration`. These
modules alone speak RAS, the space that MONAI works in; everything outside is DICOM patient space, LPS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from numpy.typing import NDArray

from ai.boxes import BoxForm, are_boxes, detections_of_boxes, straightened
from ai.classes import classes_in, values_in_answer
from ai.configuration import array_axes, items, read_configuration, read_metadata, transforms_of
from ai.contract import (
    BundleError,
    Images,
    LabelMap,
    Landmark,
    ModelCrashed,
    ModelError,
    ModelInvalidOutput,
    ModelOutOfMemory,
    Prediction,
    Registration,
    Volume,
)
from ai.detections import Detected, detections_in, instances_key
from ai.evaluated import OwnEvaluator, evaluates_itself, make_required
from ai.feed import Fed, as_read, feed
from ai.images import image_in, images_in, mapped, on_source_grid
from ai.interface import Gives, Input, Output, images_among, main_output
from ai.ladder import climb
from ai.landmarks import PointForm, landmarks_in
from ai.outputs import label_maps, output_key, output_names, probabilities
from ai.registration import Grids, raw_registration, registration_in
from ai.registration_form import FIELD, RegistrationForm
from ai.understand import understand
from ai.weights import load_network, weights_only
from ai.windows import fit_windows, free_bytes

_FORBIDDEN = " (a model may open no connection, start no process and read no file outside its bundle)"
_WITHOUT_MAPS = (
    *(Gives.DETECTION, Gives.CLASSIFICATION, Gives.REGRESSION),
    *(Gives.POINTS, Gives.REGISTRATION, Gives.IMAGE),
)
T = TypeVar("T", np.uint8, np.float32)
_ONE_IMAGE = Input("image", ("image",), 3, "")


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
    _wanted: Input
    _output: Output
    _images_too: tuple[Output, ...]
    _channels: Mapping[int, str]
    _network: torch.nn.Module
    _inferer: Callable[..., Any]
    _own: OwnEvaluator | None
    _preprocessing: Compose
    _postprocessing: Compose
    _box_form: BoxForm
    _point_form: PointForm
    _registration_form: RegistrationForm | None
    _axes: int | None
    _instances_key: str | None
    _amp: bool
    _to_fit: set[str]

    @classmethod
    def load(
        cls,
        path: Path,
        device: str = "cpu",
        changes: Mapping[str, Any] | None = None,
        *,
        amp: bool = False,
        fit: bool = False,
    ) -> Bundle:
        """Read a bundle from its folder.

        Parameters
        ----------
        path : pathlib.Path
            The bundle's root.
        device : str
            A torch device: ``cpu``, ``cuda:0``.
        changes : mapping of str to Any, optional
            Values in place of those of its inference configuration.
        amp : bool
            Whether the network computes in half precision where PyTorch's autocast does: bfloat16 on a CPU, float16 on
            a GPU.
        fit : bool
            Whether as many sliding windows are computed at once as the free memory takes.

        Raises
        ------
        BundleError
            If a file is missing, or configuration, weights and metadata do not fit together.
        """
        root = path.resolve()
        metadata = read_metadata(root)
        chosen = torch.device(device)
        try:
            with weights_only(chosen):
                parser = read_configuration(root, device, changes)
                known = understand(root)
                output = main_output(known.outputs, output_key(metadata))
                channels = {} if output.gives in _WITHOUT_MAPS else output_names(metadata)
                after = list(items({key: parser[key] for key in ("postprocessing",) if key in parser}))
                said = metadata.get("network_data_format", {}).get("outputs", {}).get(output.name, {})
                axes = array_axes(parser)
                preprocessing, postprocessing = transforms_of(parser)
                network = load_network(parser, root, chosen).eval()
                make_required(parser)
                inferer = parser.get_parsed_content("inferer")
                own = OwnEvaluator(parser) if evaluates_itself(parser.get()) else None
        except ModelError:
            raise
        except Exception as error:  # a configuration is code, so it may fail in any way
            hint = _FORBIDDEN if isinstance(_deepest(error), PermissionError) else ""
            raise BundleError(f"The bundle {root.name} cannot be loaded: {_first_line(error)}{hint}") from error
        return cls(
            name=str(metadata.get("name", root.name)),
            version=str(metadata["version"]),
            outputs=tuple(channels.values()) or output.names,
            device=chosen,
            _wanted=known.inputs[0] if known.inputs else _ONE_IMAGE,
            _output=output,
            _images_too=tuple(each for each in images_among(known.outputs) if each is not output),
            _channels=channels,
            _network=network,
            _inferer=inferer,
            _own=own,
            _preprocessing=preprocessing,
            _postprocessing=postprocessing,
            _box_form=BoxForm.of(after),
            _point_form=PointForm.of(said, after),
            _registration_form=RegistrationForm.of(output.name, said),
            _axes=axes,
            _instances_key=instances_key(metadata),
            _amp=amp,
            _to_fit={"windows"} if fit and own is None else set(),
        )

    def predict(self, images: Images, without: Collection[str] = ()) -> Prediction:
        """Run the model. The same images give the same bytes.

        Parameters
        ----------
        images : Volume, or mapping of str to Volume
            Any orientation; the bundle's own transforms turn it. Several by their roles, for a model that needs them.
        without : collection of str
            Detections that are not to be run. The bundle's inferer has to have an attribute `without` for it.

        Returns
        -------
        Prediction
            Everything on the grid of the first image, whether or not the bundle inverts its preprocessing.

        Raises
        ------
        BundleError
            If the bundle cannot leave out what it is told to leave out, or an image that it needs is missing.
        ModelInvalidOutput
            If the output has NaN, another grid than its input, or values without a name.
        ModelOutOfMemory, ModelCrashed
            If the bundle's code fails.
        """
        torch.manual_seed(0)
        self._network.eval()  # the bundle's code may have left it training: an answer would depend on the one before
        self._leave_out(without)
        clock = _Clock()
        with torch.inference_mode(), _explained(self.name, clock), _gpu_memory(self.device) as gpu_mib:
            roles = ("",) if isinstance(images, Volume) else tuple(images)
            parts = [self._ask(fed, clock, without, roles) for fed in feed(images, self._wanted)]
            whole = parts[0] if len(parts) == 1 else self._joined(parts)
            maps = label_maps(whole.channels, self._channels) if whole.channels is not None else []
            likely = probabilities(whole.channels, self._channels) if whole.channels is not None else {}
            clock.lap("postprocess")
        detected = whole.detected
        return Prediction(
            tuple(LabelMap(_slices_first(array), names) for array, names in maps),
            clock.steps_s,
            str(self.device),
            detected.found,
            None if detected.instances is None else _slices_first(detected.instances),
            None if detected.saliency is None else _slices_first(detected.saliency),
            {name: _slices_first(array) for name, array in likely.items()},
            whole.classes,
            whole.values,
            gpu_memory_mib=gpu_mib(),
            points=whole.points,
            registration=whole.registration,
            images={name: _slices_first(array) for name, array in whole.images.items()},
        )

    def _ask(self, fed: Fed, clock: _Clock, without: Collection[str], roles: tuple[str, ...]) -> _Part:
        """Run it on one volume, or on one 2-D image."""
        grid = fed.affine, fed.shape
        data = self._preprocessed(fed.data)
        image, shown = self._images(data)
        clock.lap("preprocess")
        self._fit(shown, clock)
        answer = climb(
            lambda where: self._inferred(data, shown, where), self._inferer, self._network, self.device, clock.lap
        )
        clock.lap("infer")
        if are_boxes(answer):
            data |= answer[0]
            data |= {key: straightened(data[key]) for key in self._wanted.keys if isinstance(data.get(key), MetaTensor)}
            data = self._postprocessing(data)
            found = {key: value for key, value in data.items() if key in answer[0]}
            part = _Part(detected=detections_of_boxes(found, self._box_form, self._output.names, image, grid))
        elif self._output.gives is Gives.CLASSIFICATION and not _is_map(answer, shown):
            row = self._postprocessed(data, answer[0], 1).get(self._output.name)
            part = _Part(classes={self._output.name: classes_in(row, self._output.names)})
        elif self._output.gives is Gives.REGRESSION and not _is_map(answer, shown):
            row = self._postprocessed(data, answer[0], 1).get(self._output.name)
            part = _Part(values=values_in_answer(row, self._output.names))
        elif self._output.gives is Gives.POINTS:
            given = self._postprocessed(data, answer[0], 1).get(self._output.name)
            own = image.affine.cpu().numpy().astype(np.float64)
            names, dimensions = self._output.names, self._wanted.dimensions
            part = _Part(points=landmarks_in(given, self._point_form, names, dimensions, own, fed.affine))
        elif self._registration_form is not None:
            part = _Part(registration=self._registered(data, answer, roles, image))
        elif self._output.gives is Gives.REGRESSION:
            raise ModelInvalidOutput(
                "The model answers with a value for every voxel; its metadata gives no spatial_shape, as if it were a "
                "number of the whole."
            )
        else:
            image, given = _geometry_of(image, shown), set(data) - {"pred"}
            data = self._postprocessed(data, _as_images(answer, image), len(self._channels))
            answered = {key: value for key, value in data.items() if key not in given}
            images = images_in(answered, self._images_too, image, grid)
            if self._output.gives is Gives.IMAGE:
                part = _Part(images=images | image_in(answered, self._output, image, grid))
            else:
                channels = on_source_grid(mapped(data, self._output.name), image, *grid)
                part = _Part(channels, detections_in(data, self._instances_key, image, grid, without), images=images)
        clock.lap("postprocess")
        return part

    def _registered(self, data: dict[str, Any], answer: Any, roles: tuple[str, ...], image: MetaTensor) -> Registration:
        form = self._registration_form
        assert form is not None
        grids = Grids.of(data, roles, image)
        name = self._output.name
        given = raw_registration(data[name][None] if name in data else answer, form, name)
        ready = _as_image(given, data.get(roles[0], image)) if form.what == FIELD else given
        data = self._postprocessed(data | {name: ready}, ready, 1)
        changed = [data[key] for key in (name, "pred") if key in data and data[key] is not ready]
        found = next((each for each in changed if form.fits(each.shape)), ready)  # pred may be the moved image by now
        return registration_in(found, form, grids)

    def _preprocessed(self, data: dict[str, Any]) -> dict[str, Any]:
        if self._axes is None:
            ready: dict[str, Any] = self._preprocessing(data)
            return ready
        key = self._wanted.keys[0]
        image = self._preprocessing(as_read(data[key], self._axes))
        if not isinstance(image, MetaTensor):
            image = MetaTensor(torch.as_tensor(image), affine=data[key].affine.clone())
        return data | {key: image}

    def _images(self, data: Mapping[str, Any]) -> tuple[MetaTensor, MetaTensor]:
        """The image that has the geometry, and the one that the network is shown: several may have been joined."""
        first = data[self._wanted.keys[0]]
        joined = data.get("image") if "image" not in self._wanted.keys else None
        return first, first if joined is None else joined

    def _fit(self, shown: MetaTensor, clock: _Clock) -> None:
        """Once, for what is shown first: what made it fit afterwards, when memory ran out, is not undone."""
        if "windows" in self._to_fit:
            self._to_fit.clear()
            plain = _plain(shown)[None].to(self.device)
            if (count := fit_windows(self._inferer, self._network, plain, free_bytes(self.device))) is not None:
                clock.lap(f"{count} windows at once")

    def _inferred(self, data: dict[str, Any], shown: MetaTensor, where: torch.device) -> Any:
        half = torch.bfloat16 if where.type == "cpu" else torch.float16
        with torch.autocast(where.type, dtype=half, enabled=self._amp):
            if self._own is not None:
                output = self._own(data)
                data |= {key: value for key, value in output.items() if key not in data and key != "pred"}
                answer = output["pred"][None]
            else:
                answer = self._inferer(_plain(shown)[None].to(where), self._network)
        return _in_full(answer) if self._amp else answer

    def _postprocessed(self, data: dict[str, Any], answer: Any, channels: int) -> dict[str, Any]:
        """Run what comes after the network.

        Where it squeezes outputs that overlap into one map whose numbers its metadata does not name, what it had just
        before is the answer: tumour core, whole tumour and enhancing tumour, not 1, 2 and 4.
        """
        data["pred"] = answer
        key = self._output.name
        whole: Any = None
        for transform in self._postprocessing.transforms:
            data = transform(data)
            pred = data.get(key)
            if channels > 1 and isinstance(pred, MetaTensor) and len(pred) == channels:
                whole = pred
        pred = data.get(key)
        if whole is not None and isinstance(pred, MetaTensor) and len(pred) == 1 and 0 in self._channels:
            data[key] = whole
        return data

    def _joined(self, parts: list[_Part]) -> _Part:
        """What was said of each slice, as one answer for the series."""
        if self._output.gives is Gives.POINTS:
            found = ((number, point) for number, part in enumerate(parts) for point in part.points)
            return _Part(points=tuple(replace(point, at=(float(number), *point.at[1:])) for number, point in found))
        images = {
            name: np.concatenate([part.images[name] for part in parts], axis=-1)
            for name in parts[0].images
            if all(name in part.images for part in parts)
        }
        if self._output.gives is Gives.IMAGE:
            return _Part(images=images)
        if any(part.channels is None for part in parts):
            kind = self._output.gives.value
            raise BundleError(f"The model works on single images; the series has {len(parts)}, and {kind} of each.")
        channels = [part.channels for part in parts if part.channels is not None]
        return _Part(np.concatenate(channels, axis=-1), images=images)

    def _leave_out(self, without: Collection[str]) -> None:
        if hasattr(self._inferer, "without"):
            self._inferer.without = frozenset(without)
        elif without:
            raise BundleError(f"The bundle {self.name} cannot leave out {', '.join(sorted(without))}.")


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What a bundle said of one volume, or of one 2-D image; maps are of (channels, columns, rows, slices)."""

    channels: NDArray[np.generic] | None = None
    detected: Detected = field(default_factory=Detected)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    points: tuple[Landmark, ...] = ()
    registration: Registration | None = None
    images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


class _Clock:
    def __init__(self) -> None:
        self.steps_s: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.steps_s[name] = self.steps_s.get(name, 0.0) + now - self._last
        self._last = now


@contextmanager
def _gpu_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Give what tells the most memory that was held on the GPU since, in MiB; 0 on the processor."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield lambda: torch.cuda.max_memory_reserved(device) >> 20 if device.type == "cuda" else 0
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # for other models, while this one waits


@contextmanager
def _explained(name: str, clock: _Clock) -> Iterator[None]:
    """Turn whatever the bundle's code raises into a sentence of ours, with the steps until then."""
    try:
        with _sentence(name):
            yield
    except ModelError as error:
        error.steps_s = dict(clock.steps_s)
        raise


@contextmanager
def _sentence(name: str) -> Iterator[None]:
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


def _as_images(output: Any, image: MetaTensor) -> Any:
    """The inferer's output, or each map in it, with the geometry of the image it was computed from."""
    if not isinstance(output, Mapping):
        return _as_image(output, image)
    return {key: _as_image(part, image) if isinstance(part, torch.Tensor) else part for key, part in output.items()}


def _as_image(output: Any, image: MetaTensor) -> MetaTensor:
    """The network's output with the geometry of the image it was computed from."""
    if not isinstance(output, torch.Tensor) or output.ndim != image.ndim + 1 or output.shape[0] != 1:
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


def _plain(image: torch.Tensor) -> torch.Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)


def _in_full(answer: Any) -> Any:
    """The same answer in full precision: what comes after the network was written for that."""
    if isinstance(answer, torch.Tensor):
        return answer.float() if answer.dtype in (torch.bfloat16, torch.float16) else answer
    if isinstance(answer, Mapping):
        return {key: _in_full(part) for key, part in answer.items()}
    if isinstance(answer, list | tuple):
        return type(answer)(_in_full(part) for part in answer)
    return answer


def _is_map(answer: Any, shown: torch.Tensor) -> bool:
    """Whether an answer has a value for each voxel of the image that was shown."""
    if isinstance(answer, torch.Tensor) and not bool(torch.isfinite(answer).all()):
        raise ModelInvalidOutput("The model's output contains NaN or infinity.")
    return isinstance(answer, torch.Tensor) and answer.ndim == shown.ndim + 1 and answer.shape[2:].numel() > 1


def _geometry_of(image: MetaTensor, shown: torch.Tensor) -> MetaTensor:
    """The image with the geometry; a joined one has its voxels, but may have lost its place."""
    if image.shape[1:] != shown.shape[1:]:
        raise ModelInvalidOutput(f"The bundle joined images of {tuple(image.shape[1:])} voxels into another size.")
    return image


def _slices_first(array: NDArray[T]) -> NDArray[T]:
    return np.ascontiguousarray(array.transpose(2, 1, 0))
