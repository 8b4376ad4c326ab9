"""``python -m ai evaluate``: Markdown tables on the terminal, and a report page in one file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from ai.evaluate.lung import LungResult
    from ai.evaluate.nodule_summary import Summary
    from ai.evaluate.robustness import Row
    from ai.evaluate.segments import SegmentResult
    from ai.evaluate.sets import Evaluation
    from ai.process import ModelProcess

_BUNDLES = Path(__file__).parent.parent / "bundles"
_SHIPPED = {"lung": "lung_ct", "nodules": "chest_ct", "chest": "chest_ct", "robustness": "chest_ct"}
_OWN = "segmentation"
_WARNING = "Not for clinical use. Phantoms and a few scans say how a model was built, not how it does in a hospital."


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "task",
        choices=(*sorted(_SHIPPED), _OWN),
        help="chest is lungs and nodules; robustness scans the same --phantoms again and again in other ways; "
        "segmentation is a model of your own (--bundle) on label maps (--source)",
    )
    parser.add_argument("--bundle", type=Path, help="bundle to judge (default: the one that ships)")
    parser.add_argument(
        "--data", type=Path, help="the development data's folder; for lungs, --inserted and --lidc-0314"
    )
    parser.add_argument(
        "-o", "--out", type=Path, help="folder for results, pictures and report.html; a stopped run goes on"
    )
    parser.add_argument("--phantoms", type=int, default=0, metavar="N", help="judge on N fresh phantoms")
    parser.add_argument(
        "--inserted", type=int, default=0, metavar="N", help="judge on so many scans with inserted nodules"
    )
    parser.add_argument("--lidc-0314", action="store_true", help="and on LIDC-IDRI-0314 and its four readers")
    parser.add_argument(
        "--source", type=Path, action="append", default=[], help="judge on a folder (see prepare); repeat"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N cases of each --source")
    parser.add_argument("--seen", action="store_true", help="lungs also of the scans that were trained on, marked so")
    parser.add_argument(
        "--first-seed", type=int, help="of phantoms and inserted nodules (default: 500000; robustness: 600000)"
    )
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=[1.25] * 3, metavar="MM", help="of phantoms")
    parser.add_argument("--device", default="cpu", help="torch device for model and phantoms (default: cpu)")
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds for one scan (default: 1800)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap draws (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(chosen: argparse.Namespace) -> None:
    """Judge, print, and write the page."""
    from ai.evaluate.machine import bundle_facts
    from ai.process import ModelProcess

    if chosen.task == _OWN and not (chosen.bundle and chosen.source):
        raise ValueError("Name the model with --bundle, and a folder of cases with label maps with --source.")
    bundle = chosen.bundle or _BUNDLES / _SHIPPED[chosen.task]
    sets = _sets(chosen) if chosen.task in ("nodules", "chest") else []
    if chosen.task in ("lung", "chest") and chosen.data is None:
        raise ValueError("Lungs are judged on real scans: name their folder with --data.")
    if sets and chosen.out is None:
        raise ValueError("Name a folder for the results with -o.")
    if chosen.task == "nodules" and not sets:
        raise ValueError("Nothing to judge on: choose among --phantoms, --inserted, --lidc-0314 and --source.")
    if chosen.task == "robustness" and (chosen.out is None or not chosen.phantoms):
        raise ValueError("Say on how many --phantoms, and name a folder for the results with -o.")
    facts = bundle_facts(bundle)
    with ModelProcess(bundle, device=chosen.device) as model:
        lungs = _lungs(chosen, model) if chosen.task in ("lung", "chest") else []
        judged = [(one, _judged(one, chosen, model, facts)) for one in sets]
        shaken = _shaken(chosen, model, facts, bundle) if chosen.task == "robustness" else []
        segments = _segments(chosen, model) if chosen.task == _OWN else []
    if chosen.out is not None:
        path = _write(chosen, facts, lungs, judged, shaken, segments)
        print(f"\n{path}")


def _sets(chosen: argparse.Namespace) -> list[Evaluation]:
    from ai.data.sources import find_entries
    from ai.evaluate import sets

    seed = sets.FIRST_SEED if chosen.first_seed is None else chosen.first_seed
    wanted: list[Evaluation] = []
    if chosen.phantoms:
        slices, rows, columns = chosen.spacing_mm
        wanted.append(sets.phantom_set(chosen.phantoms, seed, (slices, rows, columns), chosen.device))
    if (chosen.inserted or chosen.lidc_0314) and chosen.data is None:
        raise ValueError("--inserted and --lidc-0314 need the folder of their scan: --data.")
    if chosen.inserted:
        wanted.append(sets.inserted_set(sets.lidc_0314(_chest(chosen.data), lungs=True), chosen.inserted, seed))
    if chosen.lidc_0314:
        real = [sets.lidc_0314(_chest(chosen.data))]
        wanted.append(sets.read_set("lidc-idri-0314", "One real scan that four radiologists read", real))
    for source in chosen.source:
        form, entries = find_entries(source)
        name = source.resolve().name
        wanted.append(sets.read_set(name, f"{name}, read as {form}", entries[: chosen.limit]))
    return wanted


def _chest(data: Path) -> Path:
    inner = data / "chest_ct"
    return inner if inner.is_dir() else data


def _lungs(chosen: argparse.Namespace, model: ModelProcess) -> list[LungResult]:
    from ai.data.lung_cases import HELD_OUT, TRAINING
    from ai.evaluate.lung import evaluate_lungs, lung_table

    names = (*HELD_OUT, *TRAINING) if chosen.seen else HELD_OUT
    pictures = None if chosen.out is None else chosen.out / "pictures"
    with _progress("lungs", len(names)) as (progress, task):
        results = evaluate_lungs(
            model, chosen.data, names, pictures, timeout_s=chosen.timeout, step=lambda _: progress.advance(task)
        )
    print("\n".join(lung_table(results)))
    return results


def _segments(chosen: argparse.Namespace, model: ModelProcess) -> list[SegmentResult]:
    from ai.data.sources import find_entries
    from ai.evaluate.segments import evaluate_segments, segment_table

    entries = [entry for source in chosen.source for entry in find_entries(source)[1][: chosen.limit]]
    pictures = None if chosen.out is None else chosen.out / "pictures"
    with _progress("cases", len(entries)) as (progress, task):
        results = evaluate_segments(
            model, entries, pictures, timeout_s=chosen.timeout, step=lambda _: progress.advance(task)
        )
    print("\n".join(segment_table(results, resamples=chosen.resamples, seed=chosen.seed)))
    return results


def _judged(one: Evaluation, chosen: argparse.Namespace, model: ModelProcess, facts: dict[str, str]) -> Summary:
    from ai.evaluate import nodule_summary
    from ai.evaluate.run import run_set

    made_by = {"bundle digest": facts["bundle digest"], "device": chosen.device}
    with _progress(one.name, len(one.entries)) as (progress, task):
        results = run_set(
            one, model, chosen.out, made_by, timeout_s=chosen.timeout, step=lambda _: progress.advance(task)
        )
    summary = nodule_summary.summarise(results, resamples=chosen.resamples, seed=chosen.seed)
    print(f"\n## {one.name}\n\n{one.about}")
    for title, lines in nodule_summary.tables(summary).items():
        print(f"\n{title}\n\n" + "\n".join(lines))
    for failed in summary.failed:
        print(f"\nnot judged: {failed.id}: {failed.error}")
    return summary


def _shaken(chosen: argparse.Namespace, model: ModelProcess, facts: dict[str, str], bundle: Path) -> list[Row]:
    from ai.evaluate import robustness
    from ai.evaluate.conditions import conditions
    from ai.evaluate.log import ResultLog
    from ai.evaluate.machine import least_score

    first = robustness.FIRST_SEED if chosen.first_seed is None else chosen.first_seed
    seeds, wanted = range(first, first + chosen.phantoms), conditions()
    slices, rows, columns = chosen.spacing_mm
    made_by = {"spacing_mm": list(chosen.spacing_mm), "bundle digest": facts["bundle digest"], "device": chosen.device}
    log = ResultLog(chosen.out / "robustness.jsonl", made_by)
    with _progress("robustness", len(seeds) * len(wanted)) as (progress, task):
        robustness.run_robustness(
            model,
            seeds,
            wanted,
            partial(robustness.scanned_phantoms, spacing_mm=(slices, rows, columns), device=chosen.device),
            log,
            timeout_s=chosen.timeout,
            step=lambda _: progress.advance(task),
        )
    found = robustness.rows(log, seeds, wanted, least_score(bundle))
    print("\n".join(robustness.robustness_table(found)))
    for row in found:
        for error in row.failed:
            print(f"\nnot judged: {row.condition}: {error}")
    return found


def _write(
    chosen: argparse.Namespace,
    facts: dict[str, str],
    lungs: list[LungResult],
    judged: list[tuple[Evaluation, Summary]],
    shaken: list[Row],
    segments: list[SegmentResult],
) -> Path:
    from ai.evaluate.lung import write_lungs
    from ai.evaluate.machine import machine_facts
    from ai.evaluate.nodule_report import write_nodules
    from ai.evaluate.page import Page
    from ai.evaluate.robustness import write_robustness
    from ai.evaluate.segments import segment_table, write_segments

    machine = machine_facts(chosen.device)
    page = Page(f"Evaluation of {facts['model']}", f"{machine['date']} · weights {facts['weights digest'][:12]}")
    page.paragraph(_WARNING, "warning")
    if facts.get("training"):
        page.paragraph(facts["training"])
    if lungs:
        write_lungs(page, lungs)
    for one, summary in judged:
        write_nodules(page, one, summary, chosen.out / "pictures")
    if shaken:
        write_robustness(page, shaken, chosen.phantoms)
    if segments:
        write_segments(page, segments, segment_table(segments, resamples=chosen.resamples, seed=chosen.seed))
    page.heading("What this was made with")
    seeds = {f"{one.name}, {name}": str(value) for one, _ in judged for name, value in one.made_by.items()}
    drawn = {"bootstrap": f"{chosen.resamples} draws, seed {chosen.seed}"}
    page.facts([*facts.items(), *machine.items(), ("device", chosen.device), *seeds.items(), *drawn.items()])
    chosen.out.mkdir(parents=True, exist_ok=True)
    path: Path = chosen.out / "report.html"
    page.save(path)
    return path


@contextmanager
def _progress(name: str, total: int) -> Iterator[tuple[Progress, Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress, progress.add_task(name, total=total)
