"""SNOMED CT codes for the outputs of a bundle, found by the names that the bundle gives them.

What is found is a proposal: whoever adds a model reads it before the model is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import cast

from pydicom.sr._concepts_dict import concepts

_SCT = cast("Mapping[str, Mapping[str, tuple[str, list[int]]]]", concepts["SCT"])  # keyword -> value -> meaning, groups
UNKNOWN = "TO-BE-FILLED-IN"  # within the 16 characters that a code value may have
_TYPES = {7151, 7192, 7194, 7159}  # context groups of what a segment may be: structures, then what is not normal
_PLACES = {4, 4030, 4031, 7140, 7153}  # anatomic regions: where none of the above has the name
_ABNORMAL = {7194, 7159}
_SIDES = {"left": "Left", "right": "Right"}
_SILENT = {"of", "the", "and", "structure", "organ", "area", "region", "proper", "ct", "mri", "mr", "s"}
_SAME = {
    "tumour": "neoplasm",
    "tumor": "neoplasm",
    "tumors": "neoplasm",
    "lesions": "lesion",
    "nodules": "nodule",
    "kideny": "kidney",
    "kidneys": "kidney",
    "lungs": "lung",
    "ribs": "rib",
    "vertebrae": "vertebra",
    "oesophagus": "esophagus",
    "clavicula": "clavicle",
    "vena": "vein",
    "vessels": "vessel",
    "bowel": "intestine",
}
_OTHER_NAMES = {
    frozenset(words.split()): meaning
    for words, meaning in {
        "urinary bladder": "bladder",
        "vessel": "blood vessel",
        "ivc": "inferior vena cava",
        "heart atrium left": "left atrium",
        "heart atrium right": "right atrium",
        "heart ventricle left": "left ventricle",
        "heart ventricle right": "right ventricle",
        "heart myocardium": "myocardium",
    }.items()
}


def codes_of(output: str) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str] | None]:
    """SNOMED CT codes of an output by its name: category, type and laterality, as far as the name says them.

    Parameters
    ----------
    output : str
        The bundle's own name: ``spleen``, ``kidney_right``, ``Left-Hippocampus``, ``pancreatic tumor``.

    Returns
    -------
    category, type, laterality
        Each a mapping of value, scheme and meaning; a type that is not found has the value `UNKNOWN`. Laterality is
        None where the name says no side.
    """
    said = _words(output)
    sided = _sense(said)
    side = next((_SIDES[word] for word in said if word in _SIDES), None)
    keyword = _keyword(sided)  # the left ventricle is no side of a ventricle
    if keyword is None and side:
        keyword = _keyword(sided - set(_SIDES))
    elif keyword:
        side = None
    keyword = keyword or _abnormal(sided)
    code = _code(keyword) if keyword else {"value": UNKNOWN, "scheme": "SCT", "meaning": UNKNOWN}
    abnormal = keyword is not None and _groups(keyword) & _ABNORMAL and 7192 not in _groups(keyword)
    category = "MorphologicallyAbnormalStructure" if abnormal else "AnatomicalStructure"
    return _code(category), code, _code(side) if side else None


def toml_code(code: Mapping[str, str]) -> str:
    """Write a code as a card has it: a TOML table in one line."""
    return "{ " + ", ".join(f"{key} = {toml_text(value)}" for key, value in code.items()) + " }"


def toml_text(value: str) -> str:
    """Write a TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(value, ensure_ascii=False)


def label_of(output: str, most: int = 64) -> str:
    """Give the label that people read for an output: spaces, a large first letter, GTVp and 4CH as they are."""
    words = output.replace("_", " ").strip()
    return (words[:1].upper() + words[1:])[:most]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]+", text.lower())


def _sense(words: list[str]) -> frozenset[str]:
    """Words that carry the meaning, in one spelling."""
    return frozenset(_SAME.get(word, word) for word in words if word not in _SILENT)


def _keyword(words: frozenset[str]) -> str | None:
    return _by_words().get(_sense(_words(_OTHER_NAMES[words])) if words in _OTHER_NAMES else words)


def _abnormal(words: frozenset[str]) -> str | None:
    """Where the name is of something that is not normal in some organ, the code of that."""
    named = (_by_words().get(frozenset([word])) for word in sorted(words))
    return next((keyword for keyword in named if keyword and _groups(keyword) & _ABNORMAL), None)


@cache
def _by_words() -> dict[frozenset[str], str]:
    """Keywords of what a segment may be, by the words of the meaning, whatever their order."""
    found: dict[frozenset[str], str] = {}
    for wanted in (_TYPES, _PLACES):
        for keyword, versions in _SCT.items():
            meaning, groups = next(iter(versions.values()))
            if wanted & set(groups):
                found.setdefault(_sense(_words(meaning)), keyword)
    return found


def _groups(keyword: str) -> set[int]:
    _, groups = next(iter(_SCT[keyword].values()))
    return set(groups)


def _code(keyword: str) -> dict[str, str]:
    value, (meaning, _) = next(iter(_SCT[keyword].items()))
    return {"value": value, "scheme": "SCT", "meaning": meaning}
