"""Tries bundles of the MONAI Model Zoo, unmodified, in the node's own runner, and writes a table of what came of each.

    git clone https://github.com/Project-MONAI/model-zoo
    python benchmarks/model_zoo.py model-zoo/models [NAME …] -o docs/model_zoo.md

The zoo's weights are downloads of their own and are not needed: each bundle gets random weights from its own network
definition. So the answers mean nothing; what is tried is whether the bundle is understood, loads, runs on a generated
volume from beginning to end, and answers on the grid of that volume. One process for each bundle, as in the node. A run
that was interrupted goes on where it was: what was tried stays in FILE.begun.json until the page is written.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import monai
import numpy as np
import torch

from ai.contract import Images, ModelError, Prediction, Volume
from ai.evaluate.machine import machine_facts
from ai.interface import Gives
from ai.process import ModelProcess
from ai.understand import Understanding, understand

_TIMEOUT_S = 900.0
_EARLIER = "†"
_SPACING_MM = (2.5, 1.5, 1.5)
_SHAPE = (40, 96, 80)


def main() -> None:
    """Try the bundles and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, help="the folder with the bundles")
    parser.add_argument("names", nargs="*", help="bundles to try, others keep their rows on the page; all without it")
    parser.add_argument("-o", "--out", type=Path, help="a Markdown file to write, once every bundle was tried")
    asked = parser.parse_args()
    folders = sorted(folder for folder in asked.zoo.iterdir() if (folder / "configs").is_dir())
    folders = [folder for folder in folders if not asked.names or folder.name in asked.names]
    begun = asked.out.with_suffix(".begun.json") if asked.out else None
    rows: dict[str, Row] = {}
    if begun and begun.is_file():
        rows = {name: Row(**row) for name, row in json.loads(begun.read_text(encoding="utf-8")).items()}
    for folder in folders:
        if folder.name not in rows:
            rows[folder.name] = _row(folder)
            print(rows[folder.name], flush=True)
            if begun:
                begun.write_text(json.dumps({name: asdict(row) for name, row in rows.items()}), encoding="utf-8")
    if begun:
        lines = _kept(asked.out) if asked.names else {}
        lines |= {name: str(row) for name, row in rows.items()}
        asked.out.write_text(_page([lines[name] for name in sorted(lines)]), encoding="utf-8")
        begun.unlink(missing_ok=True)


def _kept(page: Path) -> dict[str, str]:
    """Rows of an earlier run, each marked as such."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| bundle ")]
    return {
        row.split()[1]: row if f" {_EARLIER} | " in row else row.replace(" | ", f" {_EARLIER} | ", 1) for row in rows
    }


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one bundle."""

    name: str
    takes: str
    gives: str
    ran: bool
    came: str
    load_s: float = 0.0
    run_s: float = 0.0
    memory_mib: int = 0

    def __str__(self) -> str:
        figures = f"{self.load_s:.0f} s | {self.run_s:.0f} s | {self.memory_mib:,} MiB" if self.ran else " | | "
        return (
            f"| {self.name} | {self.takes} | {self.gives} | {'yes' if self.ran else 'no'} | {self.came} | {figures} |"
        )


def _row(folder: Path) -> Row:
    known = understand(folder)
    inputs = "; ".join(str(each) for each in known.inputs) or "not said"
    outputs = "; ".join(str(each) for each in known.outputs) or "not said"
    row = Row(f"{folder.name} {known.version}", inputs, outputs, False, "understood, but " + "; ".join(known.obstacles))
    return _tried(folder, known, row) if not known.obstacles else row


def _tried(folder: Path, known: Understanding, row: Row) -> Row:
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        bundle = Path(scratch) / folder.name
        shutil.copytree(folder, bundle)
        drawn = subprocess.run(
            [sys.executable, "-c", _DRAW, str(bundle)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if drawn.returncode:
            return replace(row, came=f"its network cannot be made: {_last_line(drawn.stderr)}{_missing(known)}")
        started = time.monotonic()
        try:
            with ModelProcess(bundle, device="cpu") as model:
                prediction = model.predict(_images(known, folder), timeout_s=_TIMEOUT_S)
                memory_mib = _peak_mib(model.pid)
        except ModelError as error:
            return replace(row, came=f"{error}{_missing(known)}")
        load_s = prediction.steps_s["load"]
        run_s = time.monotonic() - started - load_s
        left_out = f"; without {', '.join(known.left_out)}" if known.left_out else ""
        return replace(
            row, ran=True, came=_said(prediction) + left_out, load_s=load_s, run_s=run_s, memory_mib=memory_mib
        )


def _missing(known: Understanding) -> str:
    return f" (not installed: {', '.join(known.missing)})" if known.missing else ""


def _said(prediction: Prediction) -> str:
    """What came back, counted, and what the PACS gets of it."""
    names = sum(len(labels.names) for labels in prediction.label_maps)
    said = (
        [f"SEG and SR: {names} segments" + (" that overlap" if len(prediction.label_maps) > 1 else "")] if names else []
    )
    if prediction.instances is not None:
        said.append(f"SEG and SR: {len(prediction.detections)} boxes")
    said += [f"SR: {len(shares)} classes" for shares in prediction.classes.values()]
    said += [f"SR: {len(prediction.values)} numbers"] if prediction.values else []
    said += [f"SR: {len(prediction.points)} points"] if prediction.points else []
    said += [f"PM and SR: {len(prediction.images)} images"] if prediction.images else []
    said += ["REG and SR: how one series lies on the other"] if prediction.registration else []
    return ", ".join(said)


# Network and weights of a bundle, drawn in a process of their own: a configuration is code.
_DRAW = """
import sys, torch
from pathlib import Path
from ai.weights import network_of
bundle = Path(sys.argv[1])
torch.manual_seed(0)
(bundle / "models").mkdir(exist_ok=True)
if "search_code_18590" in "".join(file.read_text() for file in bundle.glob("configs/inference.*")):  # DiNTS
    from monai.networks.nets.dints import TopologySearch
    node_a, code_a, code_c, _ = TopologySearch(channel_mul=0.5, num_blocks=12, num_depths=4, device="cpu").decode()
    found = {"node_a": node_a, "arch_code_a": code_a, "arch_code_c": code_c}
    torch.save(found, bundle / "models" / "search_code_18590.pt")
try:
    network = network_of(bundle)
except Exception as error:
    while error.__cause__ is not None:
        error = error.__cause__
    raise SystemExit(f"{type(error).__name__}: {error}")
torch.save(network.state_dict(), bundle / "models" / "model.pt")
"""


def _images(known: Understanding, folder: Path) -> Images:
    """What the bundle takes: one volume or 2-D image, or one for each of its series or colours."""
    wanted = known.inputs[0]
    roles = wanted.roles or (("R", "G", "B") if wanted.has_colour and wanted.modality != "MG" else ())
    size = None
    if wanted.dimensions == 2:
        says = any(output.gives in (Gives.CLASSIFICATION, Gives.POINTS) for output in known.outputs)
        size = _patch(folder) if says else (384, 320)
    volumes = {role: _volume(known, size, number) for number, role in enumerate(roles)}
    return volumes or _volume(known, size, 0)


def _patch(folder: Path) -> tuple[int, ...]:
    """Columns and rows that the network is shown at once."""
    described = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    (first, *_) = described["network_data_format"]["inputs"].values()
    return tuple(map(int, first["spatial_shape"]))


def _volume(known: Understanding, size: tuple[int, ...] | None, number: int) -> Volume:
    """Noise and an ellipsoid: a volume turned against the patient, or a single image of some columns and rows."""
    rng = np.random.default_rng(number)
    shape = _SHAPE if size is None else (1, *size[::-1])
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    inside = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < 0.7
    array = np.where(inside, 60.0, -900.0) + rng.normal(0, 20, shape)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]) * np.array(_SPACING_MM)
    modality = next((each.modality for each in known.inputs if each.modality), "CT")
    return Volume(array.astype(np.float32), affine, modality)


def _peak_mib(pid: int | None) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines() if pid else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it died"])[-1][:200]


def _page(rows: list[str]) -> str:
    facts = machine_facts("cpu")
    ran = sum("| yes |" in row for row in rows)
    earlier = [f"Rows marked {_EARLIER} are of an earlier run, perhaps of other versions.", ""]
    versions = f"MONAI {monai.__version__}, PyTorch {torch.__version__.split('+')[0]}"
    return "\n".join(
        [
            "# The MONAI Model Zoo in this node",
            "",
            "Written by `python benchmarks/model_zoo.py`; not edited by hand. Each bundle unmodified, with",
            f"random weights from its own network definition, on {' x '.join(map(str, _SHAPE))} generated voxels",
            "(a 2-D model on single images): whether it is understood, loads, runs, and answers on the grid of what it",
            f"was shown. Time and memory are of this small input on {facts['processor']}, shared with others;",
            f"{versions}, torchvision and ignite. The answers mean nothing.",
            "",
            f"{ran} of {len(rows)} bundles run unmodified.",
            "",
            *(earlier if any(f" {_EARLIER} | " in row for row in rows) else ()),
            "| bundle | takes | gives | ran | what comes back, or why not | load | run | memory |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
