"""The commands that train: imports torch only once one of them is asked to do something."""

from __future__ import annotations

import argparse
from pathlib import Path

from ai.train.recipe import TASKS


def add_tasks(models: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add what can be trained to ``python -m ai train``."""
    for task in TASKS:
        parser = models.add_parser(task, help=f"train a network for {task} on prepared cases")
        parser.add_argument("--data", type=Path, required=True, help="folder with a dataset.json (prepared, or of MSD)")
        parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="folder to write")
        parser.add_argument("--config", type=Path, help="settings as TOML, YAML or JSON (see docs/training.md)")
        parser.add_argument("--fold", type=int, default=0, help="the fold to validate on (default: 0)")
        parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--resume", action="store_true", help="go on from RUN's checkpoint where there is one")
        parser.set_defaults(run=_train, task=task)


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


def _say(line: str) -> None:
    print(line, flush=True)
