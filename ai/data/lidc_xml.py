"""Reads the XML files of LIDC-IDRI: what each reader marked, slice by slice, as it is written there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

_Element = ElementTree.Element


@dataclass(frozen=True, slots=True)
class Outline:
    """One closed outline on one slice: z in mm, points as (row, column)."""

    z_mm: float
    points: tuple[tuple[int, int], ...]
    inclusion: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """What one reader marked in one place.

    Parameters
    ----------
    reader : int
        From 1, in the order of the file.
    id : str
        The reader's own name of it.
    outlines : tuple of Outline
        One point alone for a small nodule or a non-nodule.
    characteristics : mapping of str to int
        Ratings such as ``malignancy`` and ``texture`` from 1 to 5; empty for what was only pointed at.
    is_nodule : bool
        Whether the reader took it for a nodule.
    """

    reader: int
    id: str
    outlines: tuple[Outline, ...]
    characteristics: Mapping[str, int]
    is_nodule: bool

    @property
    def is_outlined(self) -> bool:
        """Whether it is a nodule of 3 mm or more."""
        return self.is_nodule and any(len(outline.points) > 1 for outline in self.outlines)


@dataclass(frozen=True, slots=True)
class Reading:
    """One XML file: the series that was read, the number of readers, and all their marks."""

    series_uid: str
    readers: int
    marks: tuple[Mark, ...]


def read_lidc_xml(path: Path) -> Reading:
    """Read one file.

    Parameters
    ----------
    path : pathlib.Path
        A ``LidcReadMessage`` on a CT series.

    Raises
    ------
    ValueError
        If it is something else, or names no series.
    """
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314 (expat from 2.4.1 on bounds entities; the files are public)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path.name} is not XML: {error}") from error
    header = _child(root, "ResponseHeader")
    uid = next((_text(part) for part in (header if header is not None else []) if _is(part, "SeriesInstanceUid")), "")
    if not _is(root, "LidcReadMessage") or not uid:
        raise ValueError(f"{path.name} is not the reading of a CT series of LIDC-IDRI.")
    sessions = [part for part in root if _is(part, "readingSession")]
    marks = [mark for reader, session in enumerate(sessions, start=1) for mark in _marks(session, reader)]
    return Reading(uid, len(sessions), tuple(marks))


def _marks(session: _Element, reader: int) -> Iterator[Mark]:
    for part in session:
        if _is(part, "unblindedReadNodule"):
            rated = _child(part, "characteristics")
            ratings = {_name(one): int(_text(one)) for one in rated if _text(one)} if rated is not None else {}
            outlines = tuple(_outline(roi, "edgeMap") for roi in part if _is(roi, "roi"))
            yield Mark(reader, _text(_child(part, "noduleID")), outlines, ratings, is_nodule=True)
        elif _is(part, "nonNodule"):
            yield Mark(reader, _text(_child(part, "nonNoduleID")), (_outline(part, "locus"),), {}, is_nodule=False)


def _outline(roi: _Element, tag: str) -> Outline:
    points = tuple(
        (int(_text(_child(point, "yCoord"))), int(_text(_child(point, "xCoord")))) for point in roi if _is(point, tag)
    )
    inclusion = _child(roi, "inclusion")
    return Outline(
        float(_text(_child(roi, "imageZposition"))), points, inclusion is None or _text(inclusion).upper() == "TRUE"
    )


def _name(element: _Element) -> str:
    return element.tag.rpartition("}")[2]


def _is(element: _Element, name: str) -> bool:
    return _name(element) == name


def _child(element: _Element, name: str) -> _Element | None:
    return next((part for part in element if _is(part, name)), None)


def _text(element: _Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""
