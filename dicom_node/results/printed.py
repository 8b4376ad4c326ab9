"""The report on paper: whose images, what was found and how large, what it rests on, and what it is not for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image as Pictures
from pydicom.dataset import Dataset
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from dicom_node.domain.finding import Measurement, Segment
from dicom_node.results.analysis import Analysis
from dicom_node.results.drawn import draw_slice, key_slices
from dicom_node.results.header import Origin
from dicom_node.results.page import overview
from dicom_node.results.words import (
    CALCULATED,
    NOT_FOR_DIAGNOSIS,
    because,
    certainty,
    named,
    nothing_found,
    valued,
)

_FONT, _BOLD = "Vera", "VeraBd"  # Bitstream Vera, which comes with the library and is embedded
# What Vera has not, fonts that every reader of PDF brings along have (ISO 32000 9.7.5.2).
_CHINESE, _JAPANESE, _KOREAN = "STSong-Light", "HeiseiKakuGo-W5", "HYGothic-Medium"
_FONTS = {"CJK": _CHINESE, "HANGUL": _KOREAN}  # the Japanese one has Greek and Cyrillic letters, too
_WIDTH = A4[0] - 36 * mm - 12  # a frame has a padding of 6 points
_COLUMNS = (34 * mm, _WIDTH - 34 * mm)
_PLAIN = ParagraphStyle("plain", fontName=_FONT, fontSize=9, leading=12)
_SMALL = ParagraphStyle("small", _PLAIN, fontSize=7.5, leading=10, textColor=colors.HexColor("#444444"))
_HEAD = ParagraphStyle("head", _PLAIN, fontName=_BOLD, fontSize=11, leading=15, spaceBefore=8, spaceAfter=3)
_TITLE = ParagraphStyle("title", _HEAD, fontSize=15, leading=19, spaceBefore=0)
_WARNING = ParagraphStyle("warning", _HEAD, textColor=colors.HexColor("#9a4a00"), spaceBefore=2)


def print_report(analysis: Analysis, identity: Dataset) -> bytes:
    """Print the report as PDF: the same bytes for the same analysis.

    Parameters
    ----------
    analysis : Analysis
        With or without anything found.
    identity : pydicom.Dataset
        Whose it is: the object that will hold the document, with patient and study filled in.
    """
    _register_fonts()
    return _printed(analysis.origin, list(_story(analysis, identity)), "what the model found")


def print_notice(origin: Origin, identity: Dataset, head: str, said: str) -> bytes:
    """Print a page that says in words why there is nothing else to print.

    Parameters
    ----------
    identity : pydicom.Dataset
        Whose it is, as `print_report` takes it.
    head, said : str
        What to say.
    """
    _register_fonts()
    pairs = [*_whose(identity), ("Asked", f"{origin.time:%Y-%m-%d %H:%M}"), _study(identity)]
    whose = _table([(_text(name, _SMALL), _text(value, _PLAIN)) for name, value in pairs], _COLUMNS)
    story = [_text(head, _TITLE), _text(f"{NOT_FOR_DIAGNOSIS}.", _WARNING), whose, Spacer(1, 6), _text(said, _PLAIN)]
    return _printed(origin, story, "no result")


def _printed(origin: Origin, story: list[Flowable], title: str) -> bytes:
    out = BytesIO()
    pages = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=20 * mm,
        title=f"{origin.card.title}: {title}",
        author=f"{origin.equipment.model_name} {origin.equipment.version}",
        invariant=1,
    )
    pages.build(story, onFirstPage=_footer(origin), onLaterPages=_footer(origin))
    return out.getvalue()


def _story(analysis: Analysis, identity: Dataset) -> Sequence[Flowable]:
    origin, findings = analysis.origin, analysis.findings
    story: list[Flowable] = [
        _text(f"{origin.card.title}: what the model found", _TITLE),
        _text(f"{NOT_FOR_DIAGNOSIS}. Made by a machine, not verified by a reader.", _WARNING),
        _identity(analysis, identity),
    ]
    story += [_text(f"{part.text}.", _WARNING) for part in analysis.not_run]
    story.append(_text("Summary", _HEAD))
    story.append(_text(_said(analysis), _PLAIN))
    story += [_text(f"{quality.name.meaning}: {quality.value.meaning}", _PLAIN) for quality in findings.qualities]
    story += [_text(line, _SMALL) for line in because(findings.qualities)]
    story += [_text(f"{part.text}.", _SMALL) for part in findings.not_run if not part.is_part]
    if findings.present:
        story += [Spacer(1, 4), _picture(overview(analysis), _WIDTH)]
    for segment in findings.present:
        story.append(KeepTogether(_finding(segment)))
    if shown := key_slices(analysis):
        story.append(_text("Key images", _HEAD))
        story.append(_key_images(analysis, shown[:6]))
    story += [_text("Model", _HEAD), *(_text(line, _SMALL) for line in _model(analysis))]
    return story


def _said(analysis: Analysis) -> str:
    if not analysis.found:
        return nothing_found(analysis.sought, len(analysis.origin.slices))
    return f"Found: {', '.join(segment.label for segment in analysis.found)}."


def _identity(analysis: Analysis, identity: Dataset) -> Table:
    origin, spacing = analysis.origin, analysis.volume.spacing_mm
    slices, rows, columns = analysis.shape
    described = origin.patient.get("SeriesDescription") or "no description"
    series = f"{origin.patient.get('SeriesNumber') or '-'}, {described}"
    pairs = [
        *_whose(identity),
        ("Series", f"{origin.slices[0].Modality}, {series}"),
        ("Images", f"{slices} of {columns} x {rows}, {spacing[0]:.2f} mm apart, pixels of {spacing[2]:.2f} mm"),
        ("Analysed", f"{origin.time:%Y-%m-%d %H:%M}"),
        _study(identity),
    ]
    return _table([(_text(name, _SMALL), _text(value, _PLAIN)) for name, value in pairs], _COLUMNS)


def _whose(identity: Dataset) -> list[tuple[str, str]]:
    return [
        ("Patient", str(identity.PatientName).replace("^", " ").strip() or "-"),
        ("Patient ID", str(identity.PatientID) or "-"),
        ("Birth date, sex", f"{_date(identity.PatientBirthDate)}, {identity.PatientSex or '-'}"),
        ("Accession number", str(identity.AccessionNumber).strip() or "-"),
        ("Study", f"{_date(identity.StudyDate)}, {identity.get('StudyDescription') or 'no description'}"),
    ]


def _study(identity: Dataset) -> tuple[str, str]:
    return "Study UID", str(identity.StudyInstanceUID)


def _finding(segment: Segment) -> list[Flowable]:
    place = [each.meaning.lower() for each in (segment.laterality, segment.region) if each is not None]
    where = f", {' '.join(place)}" if segment.region is not None else ""
    rows: list[tuple[Flowable, Flowable]] = [_row(each) for each in segment.measurements]
    rows += [(_text(q.name.meaning, _PLAIN), _text(q.value.meaning, _PLAIN)) for q in segment.qualities]
    story: list[Flowable] = [_text(f"{segment.label}{where}", _HEAD)]
    if rows:
        story.append(_table(rows, (70 * mm, _WIDTH - 70 * mm)))
    said = [*because(segment.qualities), *([certainty(segment.score)] if segment.score is not None else [])]
    return [*story, *(_text(line, _SMALL) for line in said)]


def _row(measurement: Measurement) -> tuple[Flowable, Flowable]:
    return _text(named(measurement), _PLAIN), _text(valued(measurement), _PLAIN)


def _key_images(analysis: Analysis, shown: Sequence[int]) -> Table:
    across = 3
    side = (_WIDTH - 6 * mm) / across
    cells: list[Any] = [_picture(Pictures.fromarray(draw_slice(analysis, k, analysis.found)), side) for k in shown]
    cells += [""] * (-len(cells) % across)
    return Table([cells[n : n + across] for n in range(0, len(cells), across)], colWidths=[side + 2 * mm] * across)


def _model(analysis: Analysis) -> list[str]:
    origin = analysis.origin
    return [
        f"{origin.card.name} {origin.algorithm_version} by {origin.card.manufacturer}, device {origin.device_uid}.",
        origin.statement,
        CALCULATED,
        f"Report by {origin.equipment.model_name} {origin.equipment.version}. {origin.digests}",
    ]


def _picture(image: Pictures.Image, width: float) -> Image:
    data = BytesIO()
    image.save(data, "PNG")
    data.seek(0)
    return Image(data, width=width, height=width * image.height / image.width)


def _table(rows: Sequence[tuple[Flowable, Flowable]], widths: tuple[float, float]) -> Table:
    line = ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#cccccc"))
    tight = [(f"{side}PADDING", (0, 0), (-1, -1), 1.5) for side in ("TOP", "BOTTOM", "LEFT", "RIGHT")]
    return Table(list(rows), colWidths=widths, style=TableStyle([line, *tight, ("VALIGN", (0, 0), (-1, -1), "TOP")]))


def _footer(origin: Origin) -> Any:
    def draw(canvas: Any, pages: Any) -> None:
        canvas.setFont(_FONT, 7)
        canvas.setFillColor(colors.HexColor("#9a4a00"))
        canvas.drawString(18 * mm, 12 * mm, NOT_FOR_DIAGNOSIS)
        canvas.setFillColor(colors.HexColor("#444444"))
        name = f"{origin.card.name} {origin.card.version}, page {canvas.getPageNumber()}"
        canvas.drawRightString(A4[0] - 18 * mm, 12 * mm, name)

    return draw


def _text(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph("".join(_lettered(run, font) for run, font in _runs(text.replace("\u2192", "->"))), style)


def _runs(text: str) -> Sequence[tuple[str, str]]:
    """Cut a text where it needs another font."""
    runs: list[tuple[str, str]] = []
    for letter in text:
        font = runs[-1][1] if runs and letter == " " else _font_of(letter)
        if runs and runs[-1][1] == font:
            runs[-1] = (runs[-1][0] + letter, font)
        else:
            runs.append((letter, font))
    return runs


def _font_of(letter: str) -> str:
    if ord(letter) in pdfmetrics.getFont(_FONT).face.charToGlyph:
        return ""
    return _FONTS.get(unicodedata.name(letter, "").split(" ")[0], _JAPANESE)


def _lettered(run: str, font: str) -> str:
    return f'<font name="{font}">{escape(run)}</font>' if font else escape(run)


def _date(value: Any) -> str:
    text = str(value or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 else text or "-"


def _register_fonts() -> None:
    known = pdfmetrics.getRegisteredFontNames()
    for name in (_FONT, _BOLD):
        if name not in known:
            pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    for name in (_CHINESE, _JAPANESE, _KOREAN):
        if name not in known:
            pdfmetrics.registerFont(UnicodeCIDFont(name))
