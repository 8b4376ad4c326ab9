"""The command ``python -m ai phantom``: a synthetic scan as NIfTI or DICOM, or nodules in a real one."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume
from ai.phantom.nodules import Nodule
from ai.phantom.scanner import KERNELS, ScannerPlan

_LABELS = "1 left lung, 2 right lung, 2 + n the n-th nodule"


def add_phantom(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of this command."""
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same body (default: 0)")
    parser.add_argument("--nodules", type=int, metavar="N", help="how many (default: drawn; with --insert: 3)")
    parser.add_argument(
        "--spacing-mm", type=float, nargs="+", default=[1.25], metavar="MM",
        help="between slices, rows and columns, or one value for all (default: 1.25)",
    )  # fmt: skip
    parser.add_argument("--kernel", choices=KERNELS, help="reconstruction kernel (default: drawn)")
    parser.add_argument("--thickness-mm", type=float, metavar="MM", help="slice thickness (default: drawn)")
    parser.add_argument("--noise-hu", type=float, metavar="HU", help="standard deviation of noise (default: drawn)")
    parser.add_argument(
        "--insert", type=Path, metavar="SCAN",
        help="put the nodules into this scan instead: a folder or zip of one CT series, or NIfTI",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, help="image to write (.nii.gz)")
    parser.add_argument("--labels", type=Path, help=f"label map to write (.nii.gz): {_LABELS}")
    parser.add_argument("--truth", type=Path, metavar="JSON", help="what is known of each nodule")
    parser.add_argument(
        "--dicom", type=Path, metavar="FOLDER", help="CT series to write, with truth_seg.dcm and truth_sr.dcm"
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="FOLDER",
        help="data set to train on, of --cases scans with their lungs, drawn from --seed on",
    )  # fmt: skip
    parser.add_argument("--cases", type=int, default=10, metavar="N", help="scans of --dataset (default: 10)")
    parser.add_argument("--study-date", default="20200101", metavar="YYYYMMDD", help="part of what makes the UIDs")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.set_defaults(run=run_phantom)


def run_phantom(chosen: argparse.Namespace) -> None:
    """Draw or insert, write what was asked for, and say what is in it.

    Raises
    ------
    ValueError
        If nothing was asked for, the spacing is not one or three values, or the scan cannot be read.
    """
    if chosen.dataset:
        _write_dataset(chosen)
        return
    if not any((chosen.out, chosen.labels, chosen.dicom, chosen.truth)):
        raise ValueError("Nothing to write: give -o, --labels, --truth, --dicom or --dataset.")
    made = _inserted(chosen) if chosen.insert else _drawn(chosen)
    _write(made, chosen)
    for number, nodule in enumerate(made.nodules, start=1):
        x, y, z = nodule.centre_mm
        print(
            f"nodule {number}  {nodule.diameter_mm:5.1f} mm  {nodule.attenuation}, {nodule.margin}, {nodule.place}"
            f"{', calcified' if nodule.calcified else ''}  {nodule.side} lung  at ({x:.1f}, {y:.1f}, {z:.1f}) LPS"
        )
    print(f"{len(made.nodules)} nodules  {made.comment}")


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    volume: Volume
    lungs: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    nodules: tuple[Nodule, ...]
    plan: ScannerPlan | None
    sex: str
    comment: str


def _drawn(chosen: argparse.Namespace) -> _Made:
    from ai.phantom.chest import drawn_plan, make_phantom

    values = chosen.spacing_mm * 3 if len(chosen.spacing_mm) == 1 else chosen.spacing_mm
    if len(values) != 3 or min(values) <= 0:
        raise ValueError("--spacing-mm takes one or three numbers above 0.")
    given = {"kernel": chosen.kernel, "thickness_mm": chosen.thickness_mm, "noise_hu": chosen.noise_hu}
    plan = replace(drawn_plan(chosen.seed), **{name: value for name, value in given.items() if value is not None})
    spacing = float(values[0]), float(values[1]), float(values[2])
    phantom = make_phantom(chosen.seed, spacing, device=chosen.device, nodules=chosen.nodules, plan=plan)
    comment = (
        f"seed {chosen.seed}, kernel {plan.kernel}, slices {plan.thickness_mm:g} mm, noise {plan.noise_hu:.0f} HU, "
        f"breathing {plan.breathing_mm:.0f} mm"
    )
    return _Made(
        phantom.to_volume(),
        phantom.lungs.cpu().numpy(),
        phantom.instances.cpu().numpy(),
        phantom.nodules,
        phantom.plan,
        phantom.sex,
        comment,
    )


def _inserted(chosen: argparse.Namespace) -> _Made:
    import torch

    from ai.data.classical import classical_lungs
    from ai.phantom.insertion import insert_nodules

    volume = _read(chosen.insert)
    lungs = classical_lungs(volume)
    hu = torch.from_numpy(volume.array).to(chosen.device)
    marked = torch.from_numpy(lungs).to(chosen.device)
    count = 3 if chosen.nodules is None else chosen.nodules
    changed, instances, nodules = insert_nodules(hu, volume.affine, marked, np.random.default_rng(chosen.seed), count)
    comment = f"seed {chosen.seed}, nodules put into a real scan"
    changed_volume = Volume(changed.cpu().numpy(), volume.affine)
    return _Made(changed_volume, lungs, instances.cpu().numpy(), nodules, None, "", comment)


def _read(path: Path) -> Volume:
    from ai.data.dicom_series import find_series, read_volume
    from ai.data.nifti import read_nifti

    if path.name.endswith((".nii", ".nii.gz")):
        return read_nifti(path)
    found = [series for series in find_series(path) if series.modality == "CT"]
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} CT series; one is needed.")
    return read_volume(found[0])


def _write(made: _Made, chosen: argparse.Namespace) -> None:
    from ai.data.nifti import write_nifti

    if chosen.out:
        write_nifti(made.volume.array, made.volume.affine, chosen.out)
    if chosen.labels:
        labels = np.where(made.instances > 0, made.instances + 2, made.lungs).astype(np.uint8)
        write_nifti(labels, made.volume.affine, chosen.labels)
    if chosen.truth:
        chosen.truth.write_text(json.dumps([asdict(nodule) for nodule in made.nodules], indent=1) + "\n")
    if chosen.dicom:
        _write_dicom(made, chosen)


def _write_dataset(chosen: argparse.Namespace) -> None:
    """Write scans as a task of the Medical Segmentation Decathlon; both lungs are one structure."""
    from ai.data.nifti import write_nifti

    for part in ("imagesTr", "labelsTr"):
        (chosen.dataset / part).mkdir(parents=True, exist_ok=True)
    listed = []
    for seed in range(chosen.seed, chosen.seed + chosen.cases):
        made = _drawn(argparse.Namespace(**{**vars(chosen), "seed": seed}))
        image, label = f"imagesTr/chest_{seed}.nii.gz", f"labelsTr/chest_{seed}.nii.gz"
        write_nifti(made.volume.array, made.volume.affine, chosen.dataset / image)
        write_nifti((made.lungs > 0).astype(np.uint8), made.volume.affine, chosen.dataset / label)
        listed.append({"image": image, "label": label, "source": "synthetic"})
        print(f"{image}  {made.comment}", flush=True)
    about = {
        "name": "Synthetic lungs",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "lung"},
        "numTraining": len(listed),
        "training": listed,
    }
    (chosen.dataset / "dataset.json").write_text(json.dumps(about, indent=1) + "\n")


def _write_dicom(made: _Made, chosen: argparse.Namespace) -> None:
    from ai.phantom.series import Study, ct_slices, write_slices
    from ai.phantom.truth import truth_seg, truth_sr

    what = f"{made.comment}|{chosen.nodules}|{chosen.spacing_mm}|{made.volume.array.shape}|{chosen.study_date}"
    kind = "INSERTED" if chosen.insert else "SYNTHETIC"
    study = Study(
        identity=what,
        name=f"PHANTOM^{kind}^{chosen.seed}",
        patient_id=f"PHANTOM-{kind}-{chosen.seed}",
        sex=made.sex,
        age_years=int(np.random.default_rng([chosen.seed, 99]).integers(40, 86)),
        date=chosen.study_date,
        comment=made.comment,
        plan=made.plan,
    )
    slices = ct_slices(made.volume, study)
    write_slices(slices, chosen.dicom)
    seg = truth_seg(slices, study, made.lungs, made.instances, made.nodules)
    report = truth_sr(slices, study, seg, made.nodules)
    seg.save_as(chosen.dicom / "truth_seg.dcm", enforce_file_format=True)
    report.save_as(chosen.dicom / "truth_sr.dcm", enforce_file_format=True)
