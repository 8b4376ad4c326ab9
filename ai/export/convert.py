"""The network as TorchScript or ONNX, for those who run it elsewhere; each is compared with it before it is kept."""

from __future__ import annotations

from pathlib import Path

import torch

from ai.train import checkpoint
from ai.train.networks import build
from ai.train.run import Record
from ai.train.task import Say

_TOLERANCE = 1e-3


def convert(record: Record, models: Path, *, torchscript: bool, onnx: bool, say: Say) -> None:
    """Write ``model.ts`` and ``model.onnx`` beside ``model.pt``.

    Raises
    ------
    ValueError
        If what was written answers otherwise than the network, or a package is missing.
    """
    network = build(record.network)
    network.load_state_dict(checkpoint.load(models / "model.pt"))
    network.eval()
    patch = torch.randn(1, len(record.channels), *record.recipe.data.patch, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answer = network(patch)
    if torchscript:
        _torchscript(network, patch, answer, models / "model.ts")
        say(f"written: {models / 'model.ts'}, the same answer within {_TOLERANCE:g}")
    if onnx:
        _onnx(network, patch, answer, models / "model.onnx")
        say(f"written: {models / 'model.onnx'}, the same answer within {_TOLERANCE:g}")


def _torchscript(network: torch.nn.Module, patch: torch.Tensor, answer: torch.Tensor, path: Path) -> None:
    import warnings

    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trace says what it fixes; whether that matters is compared below
        traced = torch.jit.trace(network, patch.clone())  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path))
        again = torch.jit.load(str(path))(patch.clone())  # type: ignore[no-untyped-call]
    _compare(again, answer, path)


def _onnx(network: torch.nn.Module, patch: torch.Tensor, answer: torch.Tensor, path: Path) -> None:
    import warnings

    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"--onnx needs {error.name}: pip install -e '.[onnx]' in dicom-node's folder.") from error
    axes = {0: "batch", **{axis + 2: f"size_{axis}" for axis in range(patch.ndim - 2)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (patch.clone(),),
            str(path),
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": axes, "pred": axes},
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _compare(torch.from_numpy(session.run(None, {"image": patch.numpy()})[0]), answer, path)


def _compare(again: torch.Tensor, answer: torch.Tensor, path: Path) -> None:
    if not torch.allclose(again, answer, atol=_TOLERANCE, rtol=_TOLERANCE):
        path.unlink()
        off = float((again - answer).abs().max())
        raise ValueError(f"{path.name} answers otherwise than the network (by {off:.3g}); it was not kept.")
