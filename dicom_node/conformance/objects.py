"""What is in the objects that we make, and where each attribute comes from: found by changing one input at a time."""

from __future__ import annotations

from pydicom.datadict import dictionary_description
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.conformance.example import made
from dicom_node.conformance.markdown import Row
from dicom_node.domain import codes
from dicom_node.domain.finding import Code
from dicom_node.domain.model import OutputKind

_SOURCES = {
    "scan": "source images",
    "model": "model's card",
    "node": "node's settings",
    "job": "job",
    "findings": "what was found",
}
_LONGEST = 40


def kinds_made() -> list[Row]:
    """List each kind of object that a model can make."""
    rows: list[Row] = [("`outputs`", "SOP class", "Modality", "Transfer syntax as made")]
    for kind, result in made().items():
        sop_class = UID(result.SOPClassUID)
        syntax = UID(result.file_meta.TransferSyntaxUID)
        rows.append((f"`{kind.value}`", f"{sop_class.name} {sop_class}", str(result.Modality), syntax.name))
    return rows


def attributes() -> list[Row]:
    """List every attribute at the top of any object: which kinds have it, and where its value comes from."""
    found: dict[tuple[int, str], list[OutputKind]] = {}
    for kind, result in made().items():
        for element in result:
            found.setdefault((int(element.tag), _source(kind, element)), []).append(kind)
    rows: list[Row] = [("Attribute", "Tag", "VR", "In", "Value from")]
    for (tag, source), kinds in sorted(found.items()):
        element = made()[kinds[0]][tag]
        where = "all" if len(kinds) == len(made()) else ", ".join(kind.value for kind in kinds)
        rows.append((dictionary_description(tag), f"({tag >> 16:04X},{tag & 0xFFFF:04X})", element.VR, where, source))
    return rows


def _source(kind: OutputKind, element: DataElement) -> str:
    """Name what changes an attribute; a value that nothing changes is always this one."""
    plain = _value(made()[kind], element.tag)
    changed = [words for vary, words in _SOURCES.items() if _value(made(vary)[kind], element.tag) != plain]
    if changed:
        return ", ".join(changed)
    if element.VR == "SQ" or element.VM > 4 or isinstance(element.value, bytes):
        return "always the same"
    value = "\\".join(map(str, element.value)) if element.VM > 1 else str(element.value)
    return "always empty" if not value else f"always `{value}`" if len(value) <= _LONGEST else "always the same"


def _value(result: Dataset, tag: int) -> str:
    if tag not in result:
        return ""
    return str(result[tag].value)


def codes_of_ours() -> list[Row]:
    """List the codes of our own scheme; those of categories and classes are made of them when they are needed."""
    ours = [value for value in vars(codes).values() if isinstance(value, Code) and value.scheme == codes.LOCAL_SCHEME]
    return [
        ("Code value", "Code meaning"),
        *((each.value, each.meaning) for each in sorted(ours, key=lambda c: c.value)),
    ]
