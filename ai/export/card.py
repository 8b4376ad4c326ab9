"""The node's card of a bundle, ``card.toml``, as far as a training knows it."""

from __future__ import annotations

from ai.codes import UNKNOWN, codes_of, label_of, toml_code, toml_text
from ai.train.run import Record

_COLOURS = ([230, 110, 80], [80, 150, 230], [240, 200, 80], [120, 200, 120], [180, 120, 210], [240, 140, 190])


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
        f"name = {toml_text(name)}",
        f"version = {toml_text(version)}",
        f"title = {toml_text(record.name[:64])}",
        f"manufacturer = {toml_text(UNKNOWN)}",
        f"summary = {toml_text(f'Outlines {_listed(record.outputs[1:])}.')}",
        f"training = {toml_text(training_sentence(record))}",
        "timeout_s = 600",
        "",
        "[accepts]",
        f"modality = [{toml_text(dicom_modality(record.modality))}]",
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
        f"output = {toml_text(output)}",
        f"label = {toml_text(label_of(output))}",
        f"category = {toml_code(category)}",
        f"type = {toml_code(kind)}",
    ]
    if one_by_one:
        lines.append("min_score = 0.5  # choose it on the FROC curve")
    elif laterality is not None:
        lines.append(f"laterality = {toml_code(laterality)}")
    return [*lines, f"color_rgb = {colour}", f"measurements = {measured}"]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
