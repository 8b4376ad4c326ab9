"""Prepared cases on disk: one folder each, one index for all, hashes of every file.

``dataset.json`` is a MONAI data list (``training`` with ``image``, ``label`` and ``fold``, paths relative to it), so
that MONAI's own tools read it too; what else is known of a case stands beside these keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.nodule import Nodule

INDEX = "dataset.json"
_RECORD = "case.json"
_FORM = "dicom-node prepared cases, version 1"


def is_prepared(root: Path) -> bool:
    """Whether a folder was written by `write_case` and `write_index`."""
    try:
        return bool(json.loads((root / INDEX).read_text(encoding="utf-8")).get("form") == _FORM)
    except (OSError, ValueError, AttributeError):
        return False


def prepared_entries(root: Path) -> list[Entry]:
    """Cases of a prepared folder, in the order of its index."""
    index = json.loads((root / INDEX).read_text(encoding="utf-8"))
    return [
        Entry(record["id"], record["patient"], partial(read_case, root / "cases" / record["id"]))
        for record in (*index["training"], *index["testing"])
    ]


def read_case(folder: Path, *, verify: bool = True) -> Case:
    """Read one prepared case.

    Parameters
    ----------
    folder : pathlib.Path
        Its folder.
    verify : bool
        Compare the hash of each file with the index.

    Raises
    ------
    ValueError
        If a file changed since it was written.
    """
    record = read_record(folder)
    for name, expected in record["sha256"].items() if verify else ():
        if _sha256(folder / name) != expected:
            raise ValueError(f"{folder.name}/{name} is not the file that was prepared: its hash differs.")
    arrays, affine = _read_npz(folder) if (folder / "case.npz").is_file() else _read_nifti(folder, record)
    labels, instances = arrays.get("labels"), arrays.get("instances")
    return Case(
        id=record["id"],
        patient=record["patient"],
        images={name: Volume(arrays[name].astype(np.float32), affine, kind) for name, kind in record["images"].items()},
        provenance=Provenance(**record["provenance"]),
        labels=None if labels is None else labels.astype(np.uint8),
        label_names={int(value): name for value, name in record["label_names"].items()},
        nodules=tuple(_nodule(one) for one in record["nodules"]),
        instances=None if instances is None else instances.astype(np.uint8),
        knows_nodules=record["knows_nodules"],
        split=record["split"],
    )


def write_case(case: Case, folder: Path, options: Mapping[str, Any], *, npz: bool = False) -> None:
    """Write one case; its record comes last and in one step, so that a case is there as a whole or not at all.

    Parameters
    ----------
    case : Case
        What to write. CT is stored in whole Hounsfield units.
    folder : pathlib.Path
        The case's own folder, made if need be.
    options : mapping
        How it was prepared, kept in the record.
    npz : bool
        One compressed NumPy file in place of NIfTI files, for machines without nibabel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)
    arrays = {name: _compact(volume) for name, volume in case.images.items()}
    known = {"labels": case.labels, "instances": case.instances}
    arrays |= {name: array for name, array in known.items() if array is not None}
    if npz:
        np.savez_compressed(folder / "case.npz", affine=case.volume.affine, **arrays)  # type: ignore[arg-type]
    else:
        from ai.data.nifti import write_nifti

        for name, array in arrays.items():
            write_nifti(array, case.volume.affine, folder / f"{name}.nii.gz")
    files = ["case.npz"] if npz else [f"{name}.nii.gz" for name in arrays]
    record = {
        "id": case.id,
        "patient": case.patient,
        "split": case.split,
        "shape": case.volume.array.shape,
        "spacing_mm": [round(value, 6) for value in case.volume.spacing_mm],
        "images": {name: volume.modality for name, volume in case.images.items()},
        "label_names": dict(case.label_names),
        "nodules": [asdict(nodule) for nodule in case.nodules],
        "knows_nodules": case.knows_nodules,
        "provenance": asdict(case.provenance),
        "bytes": sum((folder / name).stat().st_size for name in files),
        "sha256": {name: _sha256(folder / name) for name in files},
        "options": dict(options),
    }
    _write_json(folder / _RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of a prepared case, without its voxels; empty if it is not there."""
    try:
        return dict(json.loads((folder / _RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def write_index(root: Path, described: Mapping[str, Any], folds: Mapping[str, int], refused: Mapping[str, str]) -> None:
    """Write ``dataset.json`` over all cases that are there.

    Parameters
    ----------
    root : pathlib.Path
        Holds ``cases/``.
    described : mapping
        What is true of the set as a whole: source, options, seed.
    folds : mapping of str to int
        Fold of each case.
    refused : mapping of str to str
        Cases that could not be read, and why.
    """
    records = [read_record(root / "cases" / name) for name in sorted(folds)]
    listed = [_listed(record, folds[record["id"]]) for record in records if record]
    index = {
        "form": _FORM,
        **described,
        "labels": {str(v): n for record in records if record for v, n in record["label_names"].items()},
        "patients": len({record["patient"] for record in listed}),
        "training": [record for record in listed if record["split"] != "test"],
        "testing": [record for record in listed if record["split"] == "test"],
        "refused": dict(refused),
    }
    _write_json(root / INDEX, index)


def _listed(record: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """The record with the paths that MONAI looks for; an ``.npz`` holds everything."""
    files = [f"cases/{record['id']}/{name}" for name in record["sha256"]]
    images = [f for f in files if Path(f).name.split(".")[0] not in ("labels", "instances")]
    named = {Path(file).name.split(".")[0]: file for file in files}
    paths: dict[str, Any] = {"image": images[0] if len(images) == 1 else images}
    paths |= {
        ours: named[theirs] for ours, theirs in (("label", "labels"), ("instances", "instances")) if theirs in named
    }
    return {**paths, "fold": fold, **{key: value for key, value in record.items() if key != "options"}}


def _compact(volume: Volume) -> NDArray[np.generic]:
    if volume.modality != "CT":
        return volume.array
    return np.clip(np.rint(volume.array), -32768, 32767).astype(np.int16)


def _nodule(one: Mapping[str, Any]) -> Nodule:
    x, y, z = one["centre_mm"]
    return Nodule(**{**one, "centre_mm": (x, y, z)})


def _read_npz(folder: Path) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.float64]]:
    with np.load(folder / "case.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, np.asarray(arrays.pop("affine"), dtype=np.float64)


def _read_nifti(folder: Path, record: Mapping[str, Any]) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.float64]]:
    from ai.data.nifti import read_nifti  # here: a machine that only trains on .npz has no nibabel

    volumes = {name.removesuffix(".nii.gz"): read_nifti(folder / name) for name in record["sha256"]}
    return {name: volume.array for name, volume in volumes.items()}, next(iter(volumes.values())).affine


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial_file.replace(path)
