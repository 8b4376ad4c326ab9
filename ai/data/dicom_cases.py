"""A folder of DICOM: every CT, MR or PET series with the segmentations, structure sets and LIDC readings about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.dicom_labels import Masks, segment_masks, structure_masks
from ai.data.dicom_series import Series, find_series, read_volume
from ai.data.lidc import nodules_of
from ai.data.lidc_xml import read_lidc_xml
from ai.data.nodule import Nodule, outlined_nodule

_IMAGES = ("CT", "MR", "PT")
_CHANNELS = {"CT": "ct", "MR": "mr", "PT": "pet"}
_SERIES_UID = 0x0020000E


def dicom_entries(root: Path, wanted: Sequence[str] = (), fewest_slices: int = 10) -> list[Entry]:
    """Find the cases below a folder, or in a zip file.

    Parameters
    ----------
    root : pathlib.Path
        Segmentations and structure sets are matched to the series that they name, or whose frame of reference they
        share; files ``*.xml`` of LIDC-IDRI to the series that they name.
    wanted : sequence of str
        Structures to keep, without regard to case; all without it. Where two overlap, the later one wins.
    fewest_slices : int
        Shorter series (localizers, reformats) are passed over.

    Returns
    -------
    list of Entry
        One for each image series.
    """
    found = find_series(root)
    readings = _readings(root)
    drawn = [(series, _named_series(series)) for series in found if series.modality in ("SEG", "RTSTRUCT")]
    entries = []
    for series in found:
        if series.modality in _IMAGES and len(series.files) >= fewest_slices:
            about = [one for one, named in drawn if series.uid in named or (not named and _same_frame(one, series))]
            name = f"{series.patient[:8]}-{hashlib.sha256(series.uid.encode()).hexdigest()[:8]}"
            read = partial(_read, name, series, about, readings.get(series.uid), tuple(wanted))
            entries.append(Entry(name, series.patient, read))
    return entries


def _read(name: str, series: Series, about: Sequence[Series], reading: Path | None, wanted: tuple[str, ...]) -> Case:
    volume = read_volume(series)
    masks: Masks = {}
    for drawn in about:
        for file in drawn.files:
            masks |= _masks(file.read(), volume)
    nodular = {label: mask for label, mask in masks.items() if "nodule" in label.lower() and mask.any()}
    labels, names = _label_map({k: v for k, v in masks.items() if k not in nodular}, wanted)
    nodules, instances = _nodules(nodular, volume)
    references = [f"{drawn.modality} {drawn.uid}" for drawn in about]
    if reading is not None:
        nodules, instances = nodules_of(read_lidc_xml(reading), volume)
        references.append("readers of LIDC-IDRI")
    return Case(
        id=name,
        patient=series.patient,
        images={_CHANNELS[series.modality]: volume},
        provenance=Provenance(
            "LIDC-IDRI" if reading is not None else "DICOM",
            "CC BY 3.0" if reading is not None else "unknown",
            ", ".join(references) or "none",
        ),
        labels=labels,
        label_names=names,
        nodules=nodules,
        instances=instances,
        knows_nodules=reading is not None or bool(nodular),
    )


def _masks(ds: FileDataset, volume: Volume) -> Masks:
    return structure_masks(ds, volume) if ds.Modality == "RTSTRUCT" else segment_masks(ds, volume)


def _label_map(masks: Masks, wanted: tuple[str, ...]) -> tuple[NDArray[np.uint8] | None, Mapping[int, str]]:
    """One map: the wanted masks in their order, or all of them, the larger ones first so that the smaller ones show."""
    by_name = {label.lower(): label for label in masks}
    if wanted:
        order = [by_name[name.lower()] for name in wanted if name.lower() in by_name]
    else:
        order = sorted(masks, key=lambda label: -int(masks[label].sum()))
    if not order:
        return None, {}
    labels = np.zeros(masks[order[0]].shape, dtype=np.uint8)
    for value, label in enumerate(order, start=1):
        labels[masks[label]] = value
    return labels, dict(enumerate(order, start=1))


def _nodules(masks: Masks, volume: Volume) -> tuple[tuple[Nodule, ...], NDArray[np.uint8] | None]:
    if not masks:
        return (), None
    instances = np.zeros(volume.array.shape, dtype=np.uint8)
    nodules = []
    for number, mask in enumerate(masks.values(), start=1):
        instances[mask] = number
        nodules.append(outlined_nodule(mask, volume, number))
    return tuple(nodules), instances


def _readings(root: Path) -> dict[str, Path]:
    """Readings of LIDC-IDRI by the series that was read; other XML files (chest radiographs, say) are passed over."""
    found = {}
    for path in sorted(root.rglob("*.xml")) if root.is_dir() else []:
        try:
            found[read_lidc_xml(path).series_uid] = path
        except ValueError:
            continue
    return found


def _named_series(series: Series) -> set[str]:
    header = series.files[0].read(pixels=False)
    return {str(element.value) for element in header.iterall() if element.tag == _SERIES_UID} - {series.uid}


def _same_frame(first: Series, second: Series) -> bool:
    return bool(first.frame_uid) and first.frame_uid == second.frame_uid
