"""The commands ``python -m ai chest …``: how the chest pack's nodule network is made and compared, step by step.

Drawing phantoms takes most of the time and is done by many processes; each training then reads what was drawn.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).parent.parent / "bundles" / "chest_ct"
_TEST_SEEDS = 100_000
_RECORD = "training.json"
_CALIBRATION = "calibration.pt"
_JUDGES = ("ranking.", "kinds.")  # layers of the network that judge what was found
_SCALES = ".adn.N."  # what MONAI calls a normalisation: version 0.2.0 had none to keep, and they are measured anew


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``chest`` and its steps to the commands of ``python -m ai``."""
    parser = commands.add_parser("chest", help="make and compare the chest pack's nodule network", description=__doc__)
    steps = parser.add_subparsers(required=True, metavar="STEP")

    backgrounds = steps.add_parser("backgrounds", help="real lungs on the network's voxels, for other machines")
    backgrounds.add_argument("--data", type=Path, required=True, help="the development data's folder")
    backgrounds.add_argument("--cases", nargs="+", required=True, help="e.g. boost-breast cptac-c3l00189")
    backgrounds.add_argument("-o", "--out", type=Path, required=True, help=".npz file to write")
    backgrounds.set_defaults(run=_backgrounds)

    draw = steps.add_parser("draw", help="draw scans with nodules: phantoms, and nodules put into real lungs")
    draw.add_argument("--set", choices=["train", "test"], default="train", help="which seeds (no two overlap)")
    draw.add_argument("--phantoms", type=int, default=0, help="how many")
    draw.add_argument("--nodules", type=int, help="in each phantom (default: drawn, none in a quarter of them)")
    draw.add_argument(
        "--first", type=int, default=0, help="leave out so many seeds of the set, and scans of each background"
    )
    draw.add_argument("--backgrounds", type=Path, help="what `backgrounds` wrote")
    draw.add_argument("--inserted", type=int, default=0, help="scans with inserted nodules for each background")
    draw.add_argument(
        "--patches", type=Path, help="insert these patches (see `synthesise sample`) instead of drawn ones"
    )
    draw.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    _common(draw)
    draw.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    draw.set_defaults(run=_draw)

    patches = steps.add_parser("patches", help="cut the nodules of drawn scans out, for `synthesise train`")
    patches.add_argument("--scans", type=Path, nargs="+", required=True, help="folders that `draw` wrote")
    _common(patches)
    patches.add_argument("-o", "--out", type=Path, required=True, help=".npz file to write")
    patches.set_defaults(run=_patches)

    train = steps.add_parser("train", help="train on drawn scans, and judge; goes on where it was stopped")
    train.add_argument("--scans", type=Path, nargs="+", required=True, help="folders that `draw` wrote")
    train.add_argument("--tasks", nargs="+", default=None, help="detect segment attenuation margin (default: all)")
    train.add_argument("--retinanet", action="store_true", help="MONAI's RetinaNet instead, boxes alone")
    train.add_argument("--start", type=Path, help="go on from these weights: a folder that `train` wrote, or a bundle")
    train.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (default: 0.002)")
    train.add_argument("--steps", type=int, default=3600, help="optimiser steps (default: 3600)")
    train.add_argument("--batch", type=int, default=8, help="patches in a step (default: 8)")
    train.add_argument("--size", type=int, default=96, help="voxels of a patch along each axis (default: 96)")
    train.add_argument("--judge", type=Path, nargs="*", default=[], help="folders of scans to judge it on")
    train.add_argument("--most", type=int, help="judge on so many scans of each folder")
    _common(train)
    train.add_argument("-o", "--out", type=Path, required=True, help="folder for weights, log and verdicts")
    train.set_defaults(run=_train)

    calibrate = steps.add_parser(
        "calibrate", help="learn to judge what trained weights find, in scans that they have not seen"
    )
    calibrate.add_argument("--run", dest="trained", type=Path, required=True, help="folder that `train` wrote")
    calibrate.add_argument("--scans", type=Path, nargs="+", required=True, help="folders that `draw` wrote")
    _common(calibrate)
    calibrate.set_defaults(run=_calibrate)

    judge = steps.add_parser("judge", help="judge trained weights on drawn scans")
    judge.add_argument("--run", dest="trained", type=Path, help="folder that `train` wrote (default: the bundle's own)")
    judge.add_argument("--scans", type=Path, nargs="+", required=True, help="folders that `draw` wrote")
    _common(judge)
    judge.add_argument("-o", "--out", type=Path, help="folder for verdicts")
    judge.set_defaults(run=_judge)

    pack = steps.add_parser("pack", help="put lungs' and nodules' weights into the bundle's one file")
    pack.add_argument("--lungs", type=Path, required=True, help="weights of the lung network (lung_ct's model.pt)")
    pack.add_argument("--nodules", type=Path, required=True, help="folder that `train` and `calibrate` wrote")
    pack.add_argument("--bundle", type=Path, default=BUNDLE)
    pack.set_defaults(run=_pack)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle (default: the one that ships)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")


def _backgrounds(chosen: argparse.Namespace) -> None:
    import numpy as np

    from ai.data.lung_cases import read_lung_case
    from ai.process import ModelProcess
    from ai.train.chest_scans import background, save_backgrounds

    prepared = []
    with ModelProcess(BUNDLE.parent / "lung_ct") as model:
        for name in chosen.cases:
            case = read_lung_case(name, chosen.data)
            lungs = model.predict(case.volume, timeout_s=1800)
            labels = lungs.mask("left lung").astype(np.uint8) + 2 * lungs.mask("right lung").astype(np.uint8)
            prepared.append(background(name, case.volume, labels, spacing_of(BUNDLE)))
            _say(f"{name}: {case.volume.array.shape} to {prepared[-1].hu.shape}")
    save_backgrounds(prepared, chosen.out)


def _draw(chosen: argparse.Namespace) -> None:
    chosen.out.mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(chosen))
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(chosen.workers, _single) as pool:
        for count, _ in enumerate(pool.imap_unordered(_draw_one, jobs), start=1):
            if count % 20 == 0 or count == len(jobs):
                _say(f"{count}/{len(jobs)} scans drawn  {time.monotonic() - started:.0f} s")


def _jobs(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    same = {"spacing_mm": spacing_of(chosen.bundle), "device": chosen.device, "out": str(chosen.out)}
    first = chosen.first + (_TEST_SEEDS if chosen.set == "test" else 0)
    for seed in range(first, first + chosen.phantoms):
        many = "" if chosen.nodules is None else f"n{chosen.nodules}"
        yield same | {"name": f"p{seed:06d}{many}", "seed": seed, "nodules": chosen.nodules}
    if chosen.backgrounds is not None:
        from ai.train.chest_scans import load_backgrounds

        for each in load_backgrounds(chosen.backgrounds):
            for number in range(chosen.first, chosen.first + chosen.inserted):
                seeds = [1 if chosen.set == "test" else 0, number, *each.name.encode()]
                more = {"background": str(chosen.backgrounds), "case": each.name, "seed": seeds}
                yield (
                    same
                    | more
                    | {
                        "name": f"i-{each.name}-{number:03d}",
                        "patches": str(chosen.patches) if chosen.patches else None,
                    }
                )


def _single() -> None:
    import torch

    torch.set_num_threads(1)


def _draw_one(job: dict[str, Any]) -> None:
    import numpy as np
    import torch

    from ai.train import chest_scans

    path = Path(job["out"]) / f"{job['name']}.pt"
    if path.exists():
        return
    if "case" in job:
        rng = np.random.default_rng(job["seed"])
        case = next(each for each in chest_scans.load_backgrounds(Path(job["background"])) if each.name == job["case"])
        count = int(rng.integers(2, 9))
        if job["patches"]:
            scan = chest_scans.pasted_scan(case, rng, count, Path(job["patches"]))
        else:
            scan = chest_scans.inserted_scan(case, rng, count, job["device"])
    else:
        scan = chest_scans.phantom_scan(job["seed"], job["spacing_mm"], job["device"], job["nodules"])
    part = path.with_suffix(".part")
    torch.save(scan.to("cpu"), part)
    part.rename(path)


def _files(folders: Sequence[Path], most: int | None = None) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.glob("*.pt"))[:most]]


def _scans(folders: Sequence[Path], device: str, most: int | None = None) -> list[Any]:
    return [_read(file, device) for file in _files(folders, most)]


def _patches(chosen: argparse.Namespace) -> None:
    from ai.synthesise.patches import ATTENUATIONS
    from ai.synthesise.source import Annotated, patches_of

    spacing = spacing_of(chosen.bundle)
    scans = (
        Annotated(
            scan.hu.float().cpu().numpy(),
            scan.instances.cpu().numpy(),
            tuple(ATTENUATIONS[int(kind)] for kind in scan.attenuation[1:]),
            (spacing,) * 3,
        )
        for scan in _scans(chosen.scans, "cpu")
    )
    patches = patches_of(scans, "phantom", 32, spacing)
    patches.save(chosen.out)
    _say(f"{len(patches)} patches written: {chosen.out}")


def _train(chosen: argparse.Namespace) -> None:
    import torch

    from ai.train.came_about import facts
    from ai.train.chest import TASKS, Plan, train_nodules
    from ai.train.chest_compare import judge_retinanet, train_retinanet

    chosen.out.mkdir(parents=True, exist_ok=True)
    tasks = tuple(chosen.tasks or TASKS)
    scans = _scans(chosen.scans, chosen.device)
    nodules = sum(len(scan.diameters) for scan in scans)
    _say(f"{chosen.out.name}: {len(scans)} scans, {nodules} nodules")
    plan = Plan(
        chosen.steps,
        chosen.batch,
        chosen.size,
        spacing_of(chosen.bundle),
        tasks,
        rate=chosen.rate,
        goes_on=chosen.start is not None,
    )

    def say(line: str) -> None:
        _say(f"{chosen.out.name}: {line}")

    if chosen.retinanet:
        detector = train_retinanet(scans, plan, say)
        del scans
        inferer, _ = _parts(chosen.bundle, chosen.device)
        for folder in chosen.judge:
            verdict = judge_retinanet(detector, inferer, _scans([folder], chosen.device, chosen.most), plan.spacing_mm)
            _tell(verdict, f"{chosen.out.name} on {folder.name}", chosen.out / f"{folder.name}.json")
        return
    torch.manual_seed(plan.seed)  # the network begins with the same weights, too
    inferer, network = _parts(chosen.bundle, chosen.device)
    before = _start(network, chosen.start) if chosen.start is not None else {}
    started = time.monotonic()
    network.nodules = train_nodules(
        network.nodules, scans, plan, say, chosen.out / "log.csv", chosen.out / "checkpoint.pt"
    )
    known = facts(
        chosen.device,
        time.monotonic() - started,
        command=f"python -m ai chest train --scans SCANS --tasks {' '.join(tasks)} --steps {plan.steps} "
        f"--batch {plan.batch} --size {plan.size} --rate {plan.rate:g} --device {chosen.device}"
        + (" --start BEFORE" if before else ""),
        seed=plan.seed,
        steps=plan.steps,
        scans=[file.stem for folder in chosen.scans for file in sorted(folder.glob("*.pt"))],
        nodules=nodules,
        **before,
    )
    (chosen.out / _RECORD).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    torch.save(_light(network.nodules.state_dict()), chosen.out / "nodules.pt")
    del scans
    _judge_on(chosen.judge, network, inferer, tasks, chosen, chosen.most)


def _start(network: Any, source: Path) -> dict[str, Any]:
    """Give the network the weights of a run or of a bundle; what is known of how these came about."""
    import torch

    if (source / _RECORD).is_file():
        state = torch.load(source / "nodules.pt", weights_only=True)
        known = json.loads((source / _RECORD).read_text(encoding="utf-8"))
    else:
        metadata = json.loads((source / "configs" / "metadata.json").read_text(encoding="utf-8"))
        whole = torch.load(source / "models" / "model.pt", weights_only=True)
        state = {name.removeprefix("nodules."): part for name, part in whole.items() if name.startswith("nodules.")}
        known = metadata.get("training", {}).get("nodules") or {"bundle": f"{source.name} {metadata['version']}"}
    missing, unknown = network.nodules.load_state_dict(state, strict=False)
    if other := [name for name in missing if _SCALES not in name] + unknown:
        raise ValueError(f"{source} is of another network: {other[0]} is not in both.")
    return {"start": known}


def _light(state: Mapping[str, Any]) -> dict[str, Any]:
    """Kernels at half precision: half the file. What they are scaled by needs all of its digits."""
    return {name: (value.half() if value.ndim > 1 else value).cpu().contiguous() for name, value in state.items()}


def _calibrate(chosen: argparse.Namespace) -> None:
    import torch

    from ai.train.chest_calibrate import learn_attenuation, learn_ranking, look

    inferer, network = _parts(chosen.bundle, chosen.device)
    network.nodules.load_state_dict(torch.load(chosen.trained / "nodules.pt", weights_only=True))
    files = _files(chosen.scans)
    started = time.monotonic()

    def scans() -> Iterator[Any]:
        for count, file in enumerate(files, start=1):
            yield _read(file, chosen.device)
            if count % 10 == 0 or count == len(files):
                _say(f"{count}/{len(files)} scans looked at  {time.monotonic() - started:.0f} s")

    seen = look(network.eval(), inferer, scans(), spacing_of(chosen.bundle))
    network.ranking, network.kinds = learn_ranking(seen), learn_attenuation(seen)
    learnt = {name: part for name, part in network.state_dict().items() if name.startswith(_JUDGES)}
    torch.save(learnt, chosen.trained / _CALIBRATION)
    known = {
        "command": f"python -m ai chest calibrate --run RUN --scans SCANS --device {chosen.device}",
        "scans": [file.stem for file in files],
        "candidates": len(seen.is_nodule),
        "nodules": int(seen.is_nodule.sum()),
        "seconds": round(time.monotonic() - started),
    }
    record = chosen.trained / _RECORD
    made = json.loads(record.read_text(encoding="utf-8")) | {"calibration": known}
    record.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    _say(f"learnt from {known['candidates']} candidates, {known['nodules']} of them nodules")


def _judge(chosen: argparse.Namespace) -> None:
    import torch

    from ai.train.chest import TASKS

    inferer, network = _parts(chosen.bundle, chosen.device)
    if chosen.trained is None:
        network.load_state_dict(torch.load(chosen.bundle / "models" / "model.pt", weights_only=True))
    else:
        network.nodules.load_state_dict(torch.load(chosen.trained / "nodules.pt", weights_only=True))
    _judge_on(chosen.scans, network, inferer, TASKS, chosen, None)


def _judge_on(
    folders: Sequence[Path],
    network: Any,
    inferer: Any,
    tasks: Sequence[str],
    chosen: argparse.Namespace,
    most: int | None,
) -> None:
    from ai.train.chest_compare import judge

    network = network.eval().to(chosen.device)
    for folder in folders:
        files = sorted(folder.glob("*.pt"))[:most]
        verdict = judge(
            network, inferer, (_read(file, chosen.device) for file in files), tasks, spacing_of(chosen.bundle)
        )
        name = chosen.out.name if chosen.out else "bundle"
        out = chosen.out / f"{folder.name}.json" if chosen.out is not None else None
        _tell(verdict, f"{name} on {folder.name} ({len(files)} scans)", out)


def _read(file: Path, device: str) -> Any:
    import torch

    return torch.load(file, weights_only=False).to(device)


def _tell(verdict: Any, name: str, out: Path | None) -> None:
    _say("\n".join([*verdict.head(), verdict.row(name)]))
    if out is not None:
        out.write_text(json.dumps([asdict(scan) for scan in verdict.judged]), encoding="utf-8")


def _pack(chosen: argparse.Namespace) -> None:
    import torch

    from ai.train.came_about import remember, remembered

    state = {f"lungs.{k}": v for k, v in torch.load(chosen.lungs, weights_only=True).items()}
    state |= {f"nodules.{k}": v for k, v in torch.load(chosen.nodules / "nodules.pt", weights_only=True).items()}
    calibration = chosen.nodules / _CALIBRATION
    beginning = _parts(chosen.bundle, "cpu")[1].state_dict()
    learnt = torch.load(calibration, weights_only=True) if calibration.is_file() else beginning
    state = _light(state) | {name: part for name, part in learnt.items() if name.startswith(_JUDGES)}
    torch.save(state, chosen.bundle / "models" / "model.pt")
    of_lungs = chosen.lungs.resolve().parents[1]
    if (of_lungs / "configs" / "metadata.json").is_file() and (known := remembered(of_lungs, "lungs")):
        remember(chosen.bundle, "lungs", known)
    remember(chosen.bundle, "nodules", json.loads((chosen.nodules / _RECORD).read_text(encoding="utf-8")))


def _parts(bundle: Path, device: str) -> tuple[Any, Any]:
    """The bundle's inferer and network, as its own configuration makes them."""
    import sys

    import torch
    from monai.bundle.config_parser import ConfigParser

    if str(bundle) not in sys.path:
        sys.path.insert(0, str(bundle))
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network_def").to(device, memory_format=torch.channels_last_3d)
    return parser.get_parsed_content("inferer"), network


def spacing_of(bundle: Path) -> float:
    """Voxel size of the nodule network, in mm."""
    return float(json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))["spacing_mm"])


def _say(line: str) -> None:
    print(line, flush=True)
