"""How a segmentation is encoded (PS3.3 C.8.20.2), and which kinds of objects follow from it.

Each encoding is an object of its own. A report points at segments of one object, so each has a report of its own, too:
a destination gets both or neither. All of them are made before anything is sent; the BINARY pair always, since every
peer that takes segmentations takes that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from dicom_node.domain.model import OutputKind


class Encoding(StrEnum):
    """What the pixels of a segmentation hold: a bit for each segment, the segment's number, a probability."""

    BINARY = "binary"
    LABELMAP = "labelmap"
    FRACTIONAL = "fractional"


_ENCODED = {
    (OutputKind.SEG, Encoding.LABELMAP): OutputKind.SEG_LABELMAP,
    (OutputKind.SEG, Encoding.FRACTIONAL): OutputKind.SEG_FRACTIONAL,
    (OutputKind.SR, Encoding.LABELMAP): OutputKind.SR_LABELMAP,
    (OutputKind.SR, Encoding.FRACTIONAL): OutputKind.SR_FRACTIONAL,
}
_PLAIN = {kind: plain for (plain, _), kind in _ENCODED.items()}


def encoded(kind: OutputKind, encoding: Encoding) -> OutputKind:
    """Give the kind of object that holds, or refers to, a segmentation in an encoding; others are what they are."""
    return _ENCODED.get((kind, encoding), kind)


def plain(kind: OutputKind) -> OutputKind:
    """Give the kind that goes where this encoding is not taken: its BINARY form."""
    return _PLAIN.get(kind, kind)


def is_plain(kind: OutputKind) -> bool:
    """Whether a card can ask for the kind; the others follow from what destinations want and what they hold."""
    return kind not in _PLAIN and kind is not OutputKind.REJECTION


def refuse_encodings(kinds: Iterable[OutputKind]) -> None:
    """Refuse kinds that are asked for in another way.

    Raises
    ------
    ValueError
        Naming the first of them.
    """
    for kind in kinds:
        if kind is OutputKind.REJECTION:
            raise ValueError(
                f"{kind.value}: nothing asks for it; `reject_superseded` of a destination says who gets it"
            )
        if not is_plain(kind):
            raise ValueError(f"{kind.value}: say {plain(kind).value!r}; `seg` of a destination says how it is encoded")
