"""What a model that is still loaded saves: the first and the second question to it, and half precision beside.

    python benchmarks/warm_start.py ai/bundles/lung_ct ai/bundles/chest_ct --amp

Each model is asked twice about the same synthetic chest, or about the CT series of a folder, in a process as the node
starts it. With --amp it is loaded once more with automatic mixed precision, and its answer compared with
the first one's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ai.contract import Prediction, Volume
from ai.data.dicom_series import find_series, read_volume
from ai.phantom.chest import make_phantom
from ai.process import ModelProcess

_TIMEOUT_S = 1800.0


def main() -> None:
    """Ask every model, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--spacing-mm", type=float, default=2.5, help="of the chest (default: 2.5)")
    parser.add_argument("--series", type=Path, metavar="FOLDER", help="ask about the first series in it instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true", help="ask in half precision, too")
    chosen = parser.parse_args()
    image = read_volume(find_series(chosen.series)[0]) if chosen.series else _phantom(chosen.spacing_mm)
    print(f"{' x '.join(map(str, image.array.shape))} voxels, {chosen.device}")
    print("| model | question | load | preprocess | infer | postprocess | in all | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for bundle in chosen.bundles:
        first = _ask(bundle, image, chosen.device, amp=False)
        if chosen.amp:
            other = _ask(bundle, image, chosen.device, amp=True, questions=("first",))
            print(f"{bundle.name}: in half precision {_agreement(first, other)}")


def _phantom(spacing_mm: float) -> Volume:
    return make_phantom(1, (spacing_mm, spacing_mm, spacing_mm), nodules=2).to_volume()


def _ask(
    bundle: Path, image: Volume, device: str, *, amp: bool, questions: Sequence[str] = ("first", "second")
) -> Prediction:
    with ModelProcess(bundle, device=device, amp=amp) as model:
        for question in questions:
            answer = model.predict(image, timeout_s=_TIMEOUT_S)
            steps = [answer.steps_s.get(step, 0.0) for step in ("load", "preprocess", "infer", "postprocess")]
            told = " | ".join(f"{seconds:.1f} s" for seconds in (*steps, sum(answer.steps_s.values())))
            name = f"{bundle.name}{', amp' if amp else ''}"
            print(f"| {name} | {question} | {told} | {answer.gpu_memory_mib or answer.memory_mib} MiB |", flush=True)
    return answer


def _agreement(first: Prediction, other: Prediction) -> str:
    told = []
    for labels in first.label_maps:
        for name in labels.names.values():
            a, b = first.mask(name), other.mask(name)
            both = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
            dice = 2 * np.count_nonzero(a & b) / both if both else 1.0
            told.append(f"{name}: Dice {dice:.4f}, {np.count_nonzero(a != b)} voxels differ")
    told.append(f"{len(first.detections)} and {len(other.detections)} detections")
    return "; ".join(told)


if __name__ == "__main__":
    main()
