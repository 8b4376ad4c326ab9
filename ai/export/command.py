"""The command ``python -m ai export``: imports torch only once it is asked to do something."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` to the commands of ``python -m ai``."""
    parser = commands.add_parser("export", help="make a bundle of a training")
    parser.add_argument("model", type=Path, metavar="RUN", help="what `train` wrote")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to make")
    parser.add_argument("--name", default="", help="name of the bundle (default: the folder's)")
    parser.add_argument("--model-version", default="0.1.0", metavar="VERSION", help="its version (default: 0.1.0)")
    parser.add_argument("--licence", type=Path, help="file that becomes LICENSE")
    parser.add_argument("--torchscript", action="store_true", help="write models/model.ts as well")
    parser.add_argument("--onnx", action="store_true", help="write models/model.onnx as well")
    parser.set_defaults(run=_export)


def _export(chosen: argparse.Namespace) -> None:
    from ai.export.bundle import export_bundle

    export_bundle(
        chosen.model,
        chosen.out,
        name=chosen.name,
        version=chosen.model_version,
        licence=chosen.licence,
        torchscript=chosen.torchscript,
        onnx=chosen.onnx,
        say=_say,
    )


def _say(line: str) -> None:
    print(line, flush=True)
