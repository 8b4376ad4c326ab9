"""Tries bundles of the MONAI Model Zoo, unmodified, in the node's own runner, and writes a table of what came of each.

    git clone https://github.com/Project-MONAI/model-zoo
    python benchmarks/model_zoo.py model-zoo/models [NAME …] -o docs/model_zoo.md

The zoo's weights are downloads of their own and are not needed: each bundle gets random weights from its own network
definition. So the answers mean nothing; what is tried is whether the bundle is understood, loads, runs on a generated
volume from beginning to end, and answers on the grid of that volume. One process for each bundle, as in the node.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ai.contract import Images, ModelError, Prediction, Volume
from ai.evaluate.machine import machine_facts
from ai.process import ModelProcess
from ai.understand import Gives, Understanding, understand

_TIMEOUT_S = 900.0
_SPACING_MM = (2.5, 1.5, 1.5)
_SHAPE = (40, 96, 80)


def main() -> None:
    """Try the bundles and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, help="the folder with the bundles")
    parser.add_argument("names", nargs="*", help="bundles to try, others keep their rows; all without it")
    parser.add_argument("-o", "--out", type=Path, help="a Markdown file to write")
    asked = parser.parse_args()
    folders = sorted(folder for folder in asked.zoo.iterdir() if (folder / "configs").is_dir())
    rows = _rows_in(asked.out) if asked.out and asked.names else {}
    for folder in folders:
        if not asked.names or folder.name in asked.names:
            rows[folder.name] = _row(folder)
            print(rows[folder.name], flush=True)
            if asked.out:
                asked.out.write_text(_page([rows[name] for name in sorted(rows, key=str.lower)]), encoding="utf-8")


def _rows_in(page: Path) -> dict[str, str]:
    """Rows of an earlier run, which stay where only some bundles are tried."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| bundle ")]
    return {row.split()[1]: row for row in rows}


def _row(folder: Path) -> str:
    known = understand(folder)
    came = _tried(folder, known) if not known.obstacles else "no: " + "; ".join(known.obstacles)
    inputs = "; ".join(str(each) for each in known.inputs) or "not said"
    outputs = "; ".join(str(each) for each in known.outputs) or "not said"
    return f"| {folder.name} {known.version} | {inputs} | {outputs} | {came} |"


def _tried(folder: Path, known: Understanding) -> str:
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        bundle = Path(scratch) / folder.name
        shutil.copytree(folder, bundle)
        drawn = subprocess.run(
            [sys.executable, "-c", _DRAW, str(bundle)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if drawn.returncode:
            return "no: random weights cannot be drawn: " + _last_line(drawn.stderr)
        started = time.monotonic()
        try:
            with ModelProcess(bundle, device="cpu") as model:
                prediction = model.predict(_images(known), timeout_s=_TIMEOUT_S)
                memory_mib = _peak_mib(model.pid)
        except ModelError as error:
            return f"no: {error}"
        took_s = time.monotonic() - started
        load_s = prediction.steps_s["load"]
        return f"yes: {_said(prediction)}, load {load_s:.0f} s, run {took_s - load_s:.0f} s, {memory_mib} MiB"


def _said(prediction: Prediction) -> str:
    """What came back, counted."""
    names = sum(len(labels.names) for labels in prediction.label_maps)
    said = [f"{names} outputs" + (" that overlap" if len(prediction.label_maps) > 1 else "")] if names else []
    if prediction.instances is not None:
        said.append(f"{len(prediction.detections)} boxes")
    said += [f"{len(shares)} classes" for shares in prediction.classes.values()]
    said += [f"{len(prediction.values)} numbers"] if prediction.values else []
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


def _images(known: Understanding) -> Images:
    """What the bundle takes: one volume or 2-D image, or one for each of its series or colours."""
    wanted = known.inputs[0]
    roles = wanted.roles or (("R", "G", "B") if wanted.has_colour and wanted.modality != "MG" else ())
    flat = wanted.dimensions == 2 and not any(output.gives is Gives.SEGMENTATION for output in known.outputs)
    volumes = {role: _volume(known, flat, number) for number, role in enumerate(roles)}
    return volumes or _volume(known, flat, 0)


def _volume(known: Understanding, flat: bool, number: int) -> Volume:
    """Noise and an ellipsoid, on a grid turned against the patient."""
    rng = np.random.default_rng(number)
    axes = [np.linspace(-1, 1, n) for n in _SHAPE]
    inside = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < 0.7
    array = np.where(inside, 60.0, -900.0) + rng.normal(0, 20, _SHAPE)
    if known.inputs[0].dimensions == 2:
        array = np.kron(array[18:19] if flat else array[18:21], np.ones((1, 4, 4))).astype(np.float64)
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
    return "\n".join(
        [
            "# The MONAI Model Zoo in this node",
            "",
            "Written by `python benchmarks/model_zoo.py`; not edited by hand. Each bundle unmodified, with random",
            f"weights from its own network definition, on {' x '.join(map(str, _SHAPE))} generated voxels: whether",
            "it is understood, loads, runs, and answers on the grid of the volume. Time and memory are of this",
            f"small volume on {facts['processor']}, shared with others; the answers mean nothing. A run that names",
            "bundles leaves the other rows as they were: they may be of other runs and versions of torch (2.13, 2.14).",
            "",
            "| bundle | takes | gives | ran unmodified |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
