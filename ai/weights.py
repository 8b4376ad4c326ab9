"""The network of a bundle and its weights: a PyTorch state, or a program (TorchScript, torch.export, ONNX)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser

from ai.configuration import content, read_configuration
from ai.contract import BundleError
from ai.understand import WEIGHTS

_NETWORK_KEYS = ("network", "network_def", "net")
_ARRAYS: list[Any] = [  # what a pickled numpy array names, in numpy 1 and 2: nothing of it does more than hold numbers
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
    *((np.zeros(1).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


@contextmanager
def weights_only(device: torch.device) -> Iterator[None]:
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
    with weights_only(torch.device(device)):
        network = content(read_configuration(path.resolve(), device), _NETWORK_KEYS)
    if not isinstance(network, torch.nn.Module):
        raise BundleError(f"The bundle {path.name} defines no network.")
    return network


def load_network(parser: ConfigParser, root: Path, device: torch.device) -> torch.nn.Module:
    """Make the network of the configuration with its weights; or, where it has none, load the bundle's program.

    Raises
    ------
    BundleError
        If the bundle has neither.
    """
    file = next((root / "models" / name for name in WEIGHTS if (root / "models" / name).is_file()), None)
    if file is None:
        raise BundleError(f"The bundle has none of models/{', models/'.join(WEIGHTS)}.")
    network = _PROGRAMS[file.suffix](file, device) if file.suffix in _PROGRAMS else content(parser, _NETWORK_KEYS)
    if file.suffix not in _PROGRAMS:
        network.load_state_dict(_state(file, device))
    return network.to(device) if file.suffix == ".pt" else network


def _state(file: Path, device: torch.device) -> Mapping[str, Any]:
    state = torch.load(file, map_location=device, weights_only=True)
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    return dict(state)


def _script(file: Path, device: torch.device) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # bundles hold such programs all the same
        program: torch.nn.Module = torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    return program.to(device).eval()


class _Exported(torch.nn.Module):
    """A program of ``torch.export``: it was made for evaluation, and cannot be told so again."""

    def __init__(self, file: Path, device: torch.device) -> None:
        super().__init__()
        self._run = [torch.export.load(file).module().to(device)]  # hidden from `eval`, which it refuses

    def forward(self, image: torch.Tensor) -> Any:
        return self._run[0](image)


class _Onnx(torch.nn.Module):
    """A network in ONNX, run by onnxruntime; its first output is the answer."""

    def __init__(self, file: Path, device: torch.device) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            needs = "models/model.onnx needs onnxruntime: pip install -e '.[onnx]' in dicom-node's folder."
            raise BundleError(needs) from error
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")[device.type != "cuda" :]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        self._session = onnxruntime.InferenceSession(str(file), providers=providers)
        self._input = self._session.get_inputs()[0].name

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        (answer, *_) = self._session.run(None, {self._input: image.detach().cpu().numpy()})
        return torch.from_numpy(np.asarray(answer)).to(image.device)


_PROGRAMS: Mapping[str, Callable[[Path, torch.device], torch.nn.Module]] = {
    ".ts": _script,
    ".pt2": _Exported,
    ".onnx": _Onnx,
}
