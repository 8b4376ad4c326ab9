"""The commands that train: imports torch only once one of them is asked to do something."""

from __future__ import annotations

import argparse
from pathlib import Path

from ai.train.recipe import TASKS


def add_tasks(models: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add what can be trained to ``python -m ai train``."""
    for task in TASKS:
        parser = models.add_parser(task, help=f"train a network for {task} on prepared cases")
        _add_common(parser)
        parser.add_argument("--fold", type=int, default=0, help="the fold to validate on (default: 0)")
        parser.add_argument("--resume", action="store_true", help="go on from RUN's checkpoint where there is one")
        parser.set_defaults(run=_train, task=task)


def add_crossvalidate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``crossvalidate`` to the commands of ``python -m ai``."""
    parser = commands.add_parser("crossvalidate", help="train once for each fold; a stopped one goes on by fold")
    parser.add_argument("task", choices=TASKS)
    _add_common(parser)
    parser.set_defaults(run=_crossvalidate)


def add_finetune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``finetune`` to the commands of ``python -m ai``."""
    parser = commands.add_parser("finetune", help="go on training a bundle's network on a few cases of one's own")
    parser.add_argument("bundle", type=Path, help="a bundle with its weights")
    _add_common(parser)
    parser.add_argument("--task", choices=TASKS, default="segmentation", help="what it does (default: segmentation)")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder alone")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: 500)")
    parser.add_argument("--learning-rate", type=float, help="highest learning rate (default: 1e-4)")
    parser.add_argument("--fold", type=int, default=0, help="the fold to validate on (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on from RUN's checkpoint where there is one")
    parser.set_defaults(run=_finetune)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with a dataset.json (prepared, or of MSD)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="folder to write")
    parser.add_argument("--config", type=Path, help="settings as TOML, YAML or JSON (see docs/training.md)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--seed", type=int, default=0)


def _train(chosen: argparse.Namespace) -> None:
    from ai.train.recipe import read_recipe
    from ai.train.run import train

    train(
        read_recipe(chosen.config, chosen.task),
        chosen.data,
        chosen.out,
        fold=chosen.fold,
        seed=chosen.seed,
        device=chosen.device,
        resume=chosen.resume,
        say=_say,
    )


def _crossvalidate(chosen: argparse.Namespace) -> None:
    from ai.train.crossvalidate import crossvalidate
    from ai.train.recipe import read_recipe

    recipe = read_recipe(chosen.config, chosen.task)
    _say(crossvalidate(recipe, chosen.data, chosen.out, seed=chosen.seed, device=chosen.device, say=_say))


def _finetune(chosen: argparse.Namespace) -> None:
    from dataclasses import replace

    from ai.train.finetune import LEARNING_RATE, STEPS, finetune, recipe_of
    from ai.train.recipe import Recipe, Training, read_recipe

    gentle = Recipe(chosen.task, training=Training(steps=STEPS, learning_rate=LEARNING_RATE))
    given = read_recipe(chosen.config, chosen.task) if chosen.config else gentle
    changes = {"steps": chosen.steps, "learning_rate": chosen.learning_rate}
    training = replace(given.training, **{key: value for key, value in changes.items() if value is not None})
    recipe = recipe_of(chosen.bundle, replace(given, training=training), freeze_encoder=chosen.freeze_encoder)
    finetune(
        chosen.bundle,
        chosen.data,
        chosen.out,
        recipe,
        fold=chosen.fold,
        seed=chosen.seed,
        device=chosen.device,
        resume=chosen.resume,
        say=_say,
    )


def _say(line: str) -> None:
    print(line, flush=True)
