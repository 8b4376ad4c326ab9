"""The command ``python -m ai synthesise``: imports torch only once it is asked to do something."""

from __future__ import annotations

import argparse
from pathlib import Path

from ai.device import device_of

_EXAMPLES = """examples:
  python -m ai synthesise patches --phantoms 40 -o patches.npz
  python -m ai synthesise train --patches patches.npz -o RUN --minutes 2.5 --device auto
  python -m ai synthesise sample RUN -n 500 -o drawn.npz --compare patches.npz
  python -m ai synthesise effect drawn.npz -o effect
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``synthesise`` and what it can do to the commands of ``python -m ai``."""
    parser = commands.add_parser(
        "synthesise",
        help="a diffusion model that draws nodule patches for augmentation",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")
    cut = steps.add_parser("patches", help="cut nodule patches out of phantoms")
    cut.add_argument("--phantoms", type=int, required=True, metavar="N", help="phantoms to draw")
    cut.add_argument("--first-seed", type=int, default=1_000_000, help="the others count on from it (default: 1000000)")
    cut.add_argument("--size", type=int, default=32, help="voxels along each edge (default: 32)")
    cut.add_argument("--spacing-mm", type=float, default=1.0, help="voxel size (default: 1)")
    cut.add_argument("-o", "--out", type=Path, required=True, help=".npz file to write")
    cut.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    cut.set_defaults(run=_cut)

    train = steps.add_parser("train", help="train the model on nodule patches")
    train.add_argument("--patches", type=Path, nargs="+", required=True, help="one or more .npz files of patches")
    train.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="folder to write")
    train.add_argument("--minutes", type=float, help="end after this time, at the latest")
    train.add_argument("--steps", type=int, help="end after this many steps, at the latest")
    train.add_argument("--batch", type=int, default=64, help="patches in a step (default: 64)")
    train.add_argument("--learning-rate", type=float, default=3e-4, help="highest learning rate (default: 3e-4)")
    train.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128], help="features at each level")
    train.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(run=_train)

    sample = steps.add_parser("sample", help="draw patches")
    sample.add_argument("model", type=Path, metavar="RUN", help="what `train` wrote")
    sample.add_argument("-n", "--count", type=int, required=True, help="patches wanted")
    sample.add_argument("-o", "--out", type=Path, required=True, help=".npz file to write")
    sample.add_argument("--compare", type=Path, nargs="+", help="training patches, to print how the drawn ones differ")
    sample.add_argument("--ddim-steps", type=int, default=50, help="denoising steps (default: 50)")
    sample.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    sample.add_argument("--seed", type=int, default=0)
    sample.set_defaults(run=_sample)

    effect = steps.add_parser("effect", help="measure what drawn patches do for a detector, on fresh phantoms")
    effect.add_argument("patches", type=Path, help=".npz file that `sample` wrote")
    effect.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    effect.add_argument("--learn", type=int, default=12, help="phantoms to train on (default: 12)")
    effect.add_argument("--judge", type=int, default=40, help="phantoms to judge on (default: 40)")
    effect.add_argument("--steps", type=int, default=1500, help="steps of each training (default: 1500)")
    effect.add_argument("--repeats", type=int, default=3, help="trainings of each kind (default: 3)")
    effect.add_argument("--spacing-mm", type=float, default=1.5, help="voxel size (default: 1.5)")
    effect.add_argument("--patch", type=int, default=64, help="voxels along each edge of a patch (default: 64)")
    effect.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    effect.set_defaults(run=_effect)


def _cut(chosen: argparse.Namespace) -> None:
    from ai.synthesise.source import patches_of, phantom_scans

    seeds = range(chosen.first_seed, chosen.first_seed + chosen.phantoms)
    scans = phantom_scans(seeds, chosen.spacing_mm, device=device_of(chosen.device), say=_say)
    patches = patches_of(scans, "phantom", chosen.size, chosen.spacing_mm)
    patches.save(chosen.out)
    _say(f"{len(patches)} patches of {chosen.phantoms} phantoms written: {chosen.out}")


def _train(chosen: argparse.Namespace) -> None:
    from ai.synthesise.diffusion import Budget, train_diffusion
    from ai.synthesise.patches import PatchSet, join

    train_diffusion(
        join([PatchSet.load(path) for path in chosen.patches]),
        chosen.out,
        Budget(chosen.minutes, chosen.steps, chosen.batch, chosen.learning_rate),
        channels=tuple(chosen.channels),
        device=device_of(chosen.device),
        seed=chosen.seed,
        say=_say,
    )
    _say(f"written: {chosen.out}")


def _sample(chosen: argparse.Namespace) -> None:
    from ai.synthesise.draw import compare, draw_patches
    from ai.synthesise.patches import PatchSet, join

    drawn = draw_patches(
        chosen.model,
        chosen.count,
        device=device_of(chosen.device),
        seed=chosen.seed,
        steps=chosen.ddim_steps,
        say=_say,
    )
    drawn.save(chosen.out)
    _say(f"written: {chosen.out}")
    if chosen.compare:
        rows = compare(drawn, join([PatchSet.load(path) for path in chosen.compare]))
        _say("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
        for row in rows:
            _say("| " + " | ".join(v if isinstance(v, str) else f"{v:.0f}" for v in row.values()) + " |")


def _effect(chosen: argparse.Namespace) -> None:
    from ai.synthesise.effect import Trial, measure_effect
    from ai.synthesise.patches import PatchSet

    trial = Trial(
        learn=chosen.learn,
        judge=chosen.judge,
        steps=chosen.steps,
        repeats=chosen.repeats,
        spacing_mm=chosen.spacing_mm,
        patch=chosen.patch,
    )
    _say(measure_effect(PatchSet.load(chosen.patches), chosen.out, trial, device=chosen.device, say=_say))


def _say(line: str) -> None:
    print(line, flush=True)
