"""Try a bundle on a file with no PACS, train and judge the models that ship, draw a phantom."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ai.contract import ModelError

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_LUNG = Path(__file__).parent / "bundles" / "lung_ct"
_EXAMPLES = """examples:
  python -m ai phantom --seed 7 -o thorax.nii.gz --labels truth.nii.gz
  python -m ai phantom --seed 7 --spacing-mm 2.5 0.8 0.8 --nodules 3 --dicom series
  python -m ai predict ai/bundles/lung_ct thorax.nii.gz -o lungs.nii.gz
  python -m ai prepare LUNA16 -o prepared --spacing-mm 1.25 --crop lung
  python -m ai evaluate lung --data DATA -o lungs
  python -m ai evaluate nodules --phantoms 200 -o nodules
  python -m ai train lung --data DATA --bundle copy_of/lung_ct
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it worked, 1 if the model or a file did not."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ModelError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ai", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="run a bundle on a NIfTI file")
    predict.add_argument("bundle", type=Path, help="the bundle's folder")
    predict.add_argument("volume", type=Path, help="a .nii or .nii.gz file")
    predict.add_argument("-o", "--out", type=Path, required=True, help="label map to write (.nii.gz)")
    predict.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    predict.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds to wait (default: 600)")
    predict.add_argument("--memory-mib", type=int, help="memory that the model may fill")
    predict.set_defaults(run=_predict)

    train = commands.add_parser("train", help="train a model: one that ships, or one of your own")
    models = train.add_subparsers(required=True, metavar="MODEL")
    lung = models.add_parser("lung", help="the lung model that ships; writes BUNDLE/models/model.pt")
    lung.add_argument("--data", type=Path, required=True, help="the development data's folder")
    lung.add_argument("--bundle", type=Path, default=_LUNG, help="bundle to train (default: the one that ships)")
    lung.add_argument("--steps", type=int, default=800, help="optimiser steps (default: 800)")
    lung.set_defaults(run=_train)

    _add_evaluate(commands)
    _add_prepare(commands)

    _add_phantom(commands)
    _add_tools(commands, models)
    _add_chest(commands)
    return parser


def _add_tools(commands: _Commands, models: _Commands) -> None:
    """What trains and exports a model of one's own."""
    from ai.export.command import add_bundle, add_export
    from ai.synthesise.command import add_parser as add_synthesise
    from ai.train.command import add_crossvalidate, add_finetune, add_tasks

    add_tasks(models)
    add_crossvalidate(commands)
    add_finetune(commands)
    add_export(commands)
    add_bundle(commands)
    add_synthesise(commands)


def _add_phantom(commands: _Commands) -> None:
    from ai.phantom.command import add_phantom

    add_phantom(commands.add_parser("phantom", help="draw a synthetic chest CT, or put nodules into a real one"))


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ai.evaluate.command import add_evaluate

    add_evaluate(commands.add_parser("evaluate", help="judge a model on scans it was not trained on"))


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ai.data.command import add_prepare

    add_prepare(commands.add_parser("prepare", help="make a public set or a folder of DICOM ready for training"))


def _add_chest(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ai.train.chest_command import add_parser

    add_parser(commands)


def _predict(chosen: argparse.Namespace) -> None:
    from ai.data.nifti import read_nifti, write_nifti
    from ai.process import ModelProcess

    volume = read_nifti(chosen.volume)
    with ModelProcess(chosen.bundle, device=chosen.device, memory_mib=chosen.memory_mib) as model:
        prediction = model.predict(volume, timeout_s=chosen.timeout)
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    for number, label_map in enumerate(prediction.label_maps):
        more = len(prediction.label_maps) > 1
        path = chosen.out.with_name(f"{number}_{chosen.out.name}") if more else chosen.out
        write_nifti(label_map.array, volume.affine, path)
        for value, name in label_map.names.items():
            print(f"{path.name}  {value}  {name}  {int((label_map.array == value).sum()) * voxel_ml:.1f} ml")
    print(
        "  ".join(f"{step} {seconds:.1f} s" for step, seconds in prediction.steps_s.items()), f" on {prediction.device}"
    )


def _train(chosen: argparse.Namespace) -> None:
    from ai.train.lung import train_lung

    train_lung(chosen.bundle, chosen.data, chosen.steps, _say)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
