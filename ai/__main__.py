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
  python -m ai predict ai/bundles/lung_ct thorax.nii.gz -o lungs.nii.gz
  python -m ai prepare LUNA16 -o prepared --spacing-mm 1.25 --crop lung
  python -m ai evaluate lung --data DATA --pictures overlays
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

    evaluate = commands.add_parser("evaluate", help="judge a model on scans it was not trained on")
    evaluate.add_argument("model", choices=["lung"])
    evaluate.add_argument("--data", type=Path, required=True, help="the development data's folder")
    evaluate.add_argument("--bundle", type=Path, default=_LUNG, help="bundle to judge (default: the one that ships)")
    evaluate.add_argument("--pictures", type=Path, help="folder for one PNG per case")
    evaluate.set_defaults(run=_evaluate)

    _add_prepare(commands)

    phantom = commands.add_parser("phantom", help="draw a synthetic thorax")
    phantom.add_argument("--seed", type=int, default=0, help="the same seed draws the same body (default: 0)")
    phantom.add_argument("--spacing-mm", type=float, default=3.0, help="voxel size (default: 3)")
    phantom.add_argument("-o", "--out", type=Path, required=True, help="image to write (.nii.gz)")
    phantom.add_argument("--labels", type=Path, help="truth to write (.nii.gz)")
    phantom.set_defaults(run=_phantom)
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


def _evaluate(chosen: argparse.Namespace) -> None:
    from ai.evaluate.lung import evaluate_lung

    evaluate_lung(chosen.bundle, chosen.data, chosen.pictures, _say)


def _phantom(chosen: argparse.Namespace) -> None:
    from ai.data.nifti import write_nifti
    from ai.phantom.thorax import make_thorax

    thorax = make_thorax(chosen.seed, chosen.spacing_mm)
    write_nifti(thorax.volume.array, thorax.volume.affine, chosen.out)
    if chosen.labels is not None:
        write_nifti(thorax.labels, thorax.volume.affine, chosen.labels)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
