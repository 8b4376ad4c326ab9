"""The command ``python -m ai export``: imports torch only once it is asked to do something."""

from __future__ import annotations

import argparse
from pathlib import Path

from ai.train.recipe import TASKS


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


def add_bundle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bundle`` to the commands of ``python -m ai``."""
    parser = commands.add_parser("bundle", help="begin a bundle, or look for what is wrong with one")
    steps = parser.add_subparsers(required=True, metavar="STEP")
    new = steps.add_parser("new", help="write a bundle with an untrained network, to fill in")
    new.add_argument("name", help="of the bundle and of its folder")
    new.add_argument("--task", choices=TASKS, required=True)
    new.add_argument("--modality", default="CT", help="DICOM Modality (default: CT)")
    new.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="FOLDER", help="where to make it (default: here)"
    )
    new.set_defaults(run=_new)
    check = steps.add_parser("check", help="name what is wrong, with file and key; exit status 1 if anything is")
    check.add_argument("bundle", type=Path)
    check.add_argument("--device", default="cpu", help="torch device to run it on (default: cpu)")
    check.add_argument("--no-run", action="store_true", help="read only: neither load the weights nor run the network")
    check.set_defaults(run=_check)


def _new(chosen: argparse.Namespace) -> None:
    from ai.export.scaffold import new_bundle

    folder = new_bundle(chosen.name, chosen.out, chosen.task, chosen.modality)
    _say(f"written: {folder}; `python -m ai bundle check {folder}` names what is to be filled in")


def _check(chosen: argparse.Namespace) -> None:
    from ai.export.check import check_bundle

    problems = check_bundle(chosen.bundle, device=chosen.device, run=not chosen.no_run, say=_say)
    for problem in problems:
        _say(str(problem))
    if problems:
        raise ValueError(f"{chosen.bundle}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    _say(f"{chosen.bundle}: nothing is wrong")


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
