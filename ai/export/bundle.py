"""Writes a finished training as a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from ai.export.card import card_toml, training_sentence
from ai.export.inference import inference_config, metadata_config
from ai.export.readme import readme
from ai.train import centre_detector, checkpoint
from ai.train.loop import BEST
from ai.train.run import Record, read_record
from ai.train.task import Say

_NO_LICENCE = """No licence has been chosen for this bundle. Replace this file with the one under which code and weights
may be used. Licence of the data it was trained on, as its dataset.json says: {data}.
"""


def export_bundle(
    run: Path,
    out: Path,
    *,
    name: str = "",
    version: str = "0.1.0",
    licence: Path | None = None,
    torchscript: bool = False,
    onnx: bool = False,
    say: Say = print,
) -> None:
    """Make a bundle of a training.

    Parameters
    ----------
    run : pathlib.Path
        What ``python -m ai train`` wrote.
    out : pathlib.Path
        Folder to make; must not hold anything yet.
    name, version : str
        Of the bundle; by default the folder's name.
    licence : pathlib.Path, optional
        Becomes LICENSE; without it LICENSE says that none was chosen.
    torchscript, onnx : bool
        Write ``models/model.ts`` and ``models/model.onnx`` as well, each compared with the network before it is kept.
    say : callable

    Raises
    ------
    ValueError
        If the training is not finished, `out` is not empty, or a conversion answers otherwise than the network.
    """
    record, name = read_record(run), name or out.resolve().name
    write_bundle(record, checkpoint.load(run / BEST)["model"], out, name=name, version=version, licence=licence)
    if torchscript or onnx:
        from ai.export.convert import convert

        convert(record, out / "models", torchscript=torchscript, onnx=onnx, say=say)
    say(f"written: {out}")


def write_bundle(
    record: Record,
    weights: Mapping[str, torch.Tensor],
    out: Path,
    *,
    name: str,
    version: str,
    licence: Path | None = None,
) -> None:
    """Write a bundle's files.

    Parameters
    ----------
    record : ai.train.run.Record
        How the network came about.
    weights : mapping of str to torch.Tensor
        Its state.
    out, name, version, licence
        As `export_bundle`.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; a bundle needs a folder of its own.")
    for part in ("configs", "models", "docs"):
        (out / part).mkdir(parents=True, exist_ok=True)
    checkpoint.save({key: value.cpu().contiguous() for key, value in weights.items()}, out / "models" / "model.pt")
    _json(inference_config(record), out / "configs" / "inference.json")
    _json(metadata_config(record, name, version, training_sentence(record)), out / "configs" / "metadata.json")
    (out / "docs" / "README.md").write_text(readme(record, name), encoding="utf-8")
    (out / "card.toml").write_text(card_toml(record, name, version), encoding="utf-8")
    if record.task == "detection":  # the bundle runs where this package is not
        shutil.copyfile(Path(centre_detector.__file__), out / "centre_detector.py")
    if licence is not None:
        shutil.copyfile(licence, out / "LICENSE")
    else:
        (out / "LICENSE").write_text(_NO_LICENCE.format(data=record.licence or "not stated"), encoding="utf-8")


def _json(content: object, path: Path) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
