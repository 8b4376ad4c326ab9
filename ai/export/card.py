"""The node's card of a bundle, ``card.toml``, as far as a training knows it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pydicom.sr.codedict import codes

from ai.train.run import Record

UNKNOWN = "TO-BE-FILLED-IN"  # within the 16 characters that a code value may have
_LESIONS = {"tumor": "Tumor", "tumour": "Tumor", "lesion": "Lesion", "nodule": "Nodule", "mass": "Mass", "cyst": "Cyst"}
_COLOURS = ([230, 110, 80], [80, 150, 230], [240, 200, 80], [120, 200, 120], [180, 120, 210], [240, 140, 190])
_OTHER_NAMES = {"bladder": "UrinaryBladder", "vessel": "BloodVessel", "esophagus": "Esophagus"}


def training_sentence(record: Record) -> str:
    """What goes into every object that the node makes with the model: on what it was trained, and what it is not for.

    Parameters
    ----------
    record : ai.train.run.Record
        Counts of real and synthetic cases come from the ``source`` of each case in ``dataset.json``.
    """
    if not record.steps:
        return "Not trained; not for clinical use."
    before = f"Fine-tuned from {record.started_from}; t" if record.started_from else "T"
    return f"{before}rained on {record.real} real and {record.synthetic} synthetic scans; not for clinical use."


def card_toml(record: Record, name: str, version: str) -> str:
    """Text of a ``card.toml``.

    What a training cannot know, above all the codes of outputs with names of their own, says `UNKNOWN`, and ``bundle
    check`` names each such place.
    """
    lines = [
        "# What the node says about this model, and which outputs become which coded segments.",
        f"name = {_text(name)}",
        f"version = {_text(version)}",
        f"title = {_text(record.name[:64])}",
        f"manufacturer = {_text(UNKNOWN)}",
        f"summary = {_text(f'Outlines {_listed(record.outputs[1:])}.')}",
        f"training = {_text(training_sentence(record))}",
        "timeout_s = 600",
        "",
        "[accepts]",
        f"modality = [{_text(dicom_modality(record.modality))}]",
        "min_slices = 8",
    ]
    for number, output in enumerate(record.outputs[1:]):
        colour = _COLOURS[number % len(_COLOURS)]
        lines += ["", *_segment(output, colour, ct=record.modality == "CT", one_by_one=record.task == "detection")]
    return "\n".join(lines) + "\n"


def dicom_modality(said: str) -> str:
    """DICOM's Modality (0008,0060) for what a data set calls its images: ``FLAIR``, ``T1w`` and ``MRI`` are MR."""
    plain = said.upper()
    return plain if plain in ("CT", "MR", "PT", "US", "MG", "CR", "DX", "NM") else "MR"


def _segment(output: str, colour: list[int], *, ct: bool, one_by_one: bool) -> list[str]:
    category, kind, laterality = codes_of(output)
    measured = '["volume", "mean_attenuation"]' if ct else '["volume"]'
    lines = [
        "[[detections]]" if one_by_one else "[[segments]]",
        f"output = {_text(output)}",
        f"label = {_text(output[:1].upper() + output[1:64])}",
        f"category = {_code(category)}",
        f"type = {_code(kind)}",
    ]
    if one_by_one:
        lines.append("min_score = 0.5  # choose it on the FROC curve")
    elif laterality is not None:
        lines.append(f"laterality = {_code(laterality)}")
    return [*lines, f"color_rgb = {colour}", f"measurements = {measured}"]


def codes_of(output: str) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str] | None]:
    """SNOMED CT codes of an output by its name: category, type and laterality, as far as the name says them.

    Returns
    -------
    category, type, laterality
        Each a mapping of value, scheme and meaning; laterality is None where the name says no side.
    """
    words = re.findall(r"[a-z]+", output.lower())
    side = next((word for word in words if word in ("left", "right")), None)
    rest = [word for word in words if word != side]
    lesion = next((_LESIONS[word] for word in rest if word in _LESIONS), None)
    category = _known("MorphologicallyAbnormalStructure" if lesion else "AnatomicalStructure")
    keyword = "".join(word.capitalize() for word in rest)
    kind = lesion or _OTHER_NAMES.get("".join(rest), keyword)
    return category, _known(kind), _known(side.capitalize()) if side else None


def _known(keyword: str) -> dict[str, str]:
    try:
        found = getattr(codes.SCT, keyword)
    except AttributeError:
        return {"value": UNKNOWN, "scheme": "SCT", "meaning": UNKNOWN}
    return {"value": str(found.value), "scheme": "SCT", "meaning": str(found.meaning)}


def _code(code: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {_text(value)}" for key, value in code.items()) + " }"


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(value, ensure_ascii=False)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
