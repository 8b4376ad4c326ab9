"""``python -m ai prepare``: public sets and folders of DICOM, made ready for training and judging."""

from __future__ import annotations

import argparse
from pathlib import Path

from ai.data.grid import CROPS


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", type=Path, help="folder of LUNA16, MSD, BraTS, LiTS, ISIC or DICOM, or a DICOM zip")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write; a stopped run goes on")
    parser.add_argument("--format", default="", help="how to read it (default: found out)")
    parser.add_argument(
        "--spacing-mm", type=float, nargs="+", metavar="MM", help="voxel size, one or three (default: the source's)"
    )
    parser.add_argument("--crop", choices=CROPS, default="none", help="cut out the box around it (default: none)")
    parser.add_argument("--label", action="append", default=[], help="DICOM structure to keep, once for each")
    parser.add_argument("--folds", type=int, default=5, help="folds by patient (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="deals patients to folds (default: 0)")
    parser.add_argument("--npz", action="store_true", help="NumPy files in place of NIfTI")
    parser.add_argument("--limit", type=int, help="prepare only the first so many cases")
    parser.set_defaults(run=run_prepare)


def run_prepare(chosen: argparse.Namespace) -> None:
    """Prepare, with a progress bar; what could not be read is listed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ai.data.prepare import Options, prepare
    from ai.data.sources import find_entries

    form, entries = find_entries(chosen.source, chosen.format, chosen.label)
    entries = entries[: chosen.limit]
    spacing = _spacing(chosen.spacing_mm)
    patients = len({entry.patient for entry in entries})
    options = Options(spacing, chosen.crop, min(chosen.folds, patients), chosen.seed, chosen.npz)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{form}: {len(entries)} cases", total=len(entries))
        described = {"name": chosen.source.resolve().name, "source_form": form}
        refused = prepare(entries, chosen.out, options, described, lambda _: progress.advance(task))
    for name, why in refused.items():
        print(f"refused {name}: {why}")
    print(f"{len(entries) - len(refused)} of {len(entries)} cases of {patients} patients, {options.folds} folds")


def _spacing(given: list[float] | None) -> tuple[float, float, float] | None:
    if given is None:
        return None
    if len(given) not in (1, 3) or min(given) <= 0:
        raise ValueError("--spacing-mm takes one number, or three: between slices, rows and columns.")
    slices, rows, columns = given if len(given) == 3 else given * 3
    return slices, rows, columns
