"""Times the chest pack from a volume in memory to findings, step by step, and measures its peak memory.

    python benchmarks/chest_pack.py                      a phantom of 275 x 512 x 512 voxels, on the CPU
    python benchmarks/chest_pack.py --device cuda

The first answer is cold (caches, kernels); the others are what a running node sees.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ai.bundle import Bundle
from ai.contract import Volume
from ai.phantom.chest import make_phantom
from ai.train.chest_command import BUNDLE

SIZE, SPACING_MM = (275, 512, 512), (1.0, 0.78125, 0.78125)


def main() -> None:
    """Print one row for each answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=300_000, help="phantom to draw")
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    volume = phantom_volume(chosen.seed, chosen.device)
    bundle = Bundle.load(chosen.bundle, chosen.device)
    where = torch.cuda.get_device_name() if chosen.device != "cpu" else f"{torch.get_num_threads()} threads"
    print(f"{platform.processor() or platform.machine()}, {where}, PyTorch {torch.__version__}, {volume.array.shape}")
    print("| answer | preprocess s | infer s | postprocess s | all s | nodules | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for number in range(1, chosen.repeat + 1):
        answer = bundle.predict(volume)
        steps = list(answer.steps_s.values())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if chosen.device != "cpu":
            peak = torch.cuda.max_memory_allocated() / 2**30
        seconds = " | ".join(f"{step:.2f}" for step in [*steps, sum(steps)])
        print(f"| {number} | {seconds} | {len(answer.detections)} | {peak:.2f} |", flush=True)


def phantom_volume(seed: int, device: str) -> Volume:
    """Draw a phantom, brought to the size of a real scan by air around it or a cut at its edges."""
    drawn = make_phantom(seed, SPACING_MM, device=device, nodules=4).to_volume()
    array = np.full(SIZE, -1000.0, dtype=np.float32)
    offsets = [(have - want) // 2 for have, want in zip(drawn.array.shape, SIZE, strict=True)]
    source = tuple(slice(max(0, o), max(0, o) + s) for o, s in zip(offsets, SIZE, strict=True))
    part = drawn.array[source]
    target = tuple(slice(max(0, -o), max(0, -o) + n) for o, n in zip(offsets, part.shape, strict=True))
    array[target] = part
    return Volume(array, drawn.affine)


if __name__ == "__main__":
    main()
