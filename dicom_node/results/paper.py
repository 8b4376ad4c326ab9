"""What is printed: pages with a footer, texts in any letters, tables and pictures, alike for the same contents."""

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
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Table, TableStyle

from dicom_node.domain.finding import Measurement, Quality, Segment
from dicom_node.results.header import Origin
from dicom_node.results.words import CALCULATED, NOT_FOR_DIAGNOSIS, because, certainty, named, valued

_FONT, _BOLD = "Vera", "VeraBd"  # Bitstream Vera, which comes with the library and is embedded
# What Vera has not, fonts that every reader of PDF brings along have (ISO 32000 9.7.5.2).
_CHINESE, _JAPANESE, _KOREAN = "STSong-Light", "HeiseiKakuGo-W5", "HYGothic-Medium"
_FONTS = {"CJK": _CHINESE, "HANGUL": _KOREAN}  # the Japanese one has Greek and Cyrillic letters, too
WIDTH = A4[0] - 36 * mm - 12  # a frame has a padding of 6 points
PLAIN = ParagraphStyle("plain", fontName=_FONT, fontSize=9, leading=12)
SMALL = ParagraphStyle("small", PLAIN, fontSize=7.5, leading=10, textColor=colors.HexColor("#444444"))
HEAD = ParagraphStyle("head", PLAIN, fontName=_BOLD, fontSize=11, leading=15, spaceBefore=8, spaceAfter=3)
TITLE = ParagraphStyle("title", HEAD, fontSize=15, leading=19, spaceBefore=0)
WARNING = ParagraphStyle("warning", HEAD, textColor=colors.HexColor("#9a4a00"), spaceBefore=2)


def printed(origin: Origin, story: list[Flowable], title: str) -> bytes:
    """Print pages: the same bytes for the same story."""
    _register_fonts()
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


def identity_table(identity: Dataset, about: Sequence[tuple[str, str]]) -> Table:
    """Say whose it is, what `about` adds, and of which study."""
    pairs = [
        ("Patient", str(identity.PatientName).replace("^", " ").strip() or "-"),
        ("Patient ID", str(identity.PatientID) or "-"),
        ("Birth date, sex", f"{_date(identity.PatientBirthDate)}, {identity.PatientSex or '-'}"),
        ("Accession number", str(identity.AccessionNumber).strip() or "-"),
        ("Study", f"{_date(identity.StudyDate)}, {identity.get('StudyDescription') or 'no description'}"),
        *about,
        ("Study UID", str(identity.StudyInstanceUID)),
    ]
    return table([(text(name, SMALL), text(value, PLAIN)) for name, value in pairs], (34 * mm, WIDTH - 34 * mm))


def series_row(origin: Origin) -> tuple[str, str]:
    """Name the series that was analysed."""
    described = origin.patient.get("SeriesDescription") or "no description"
    series = f"{origin.patient.get('SeriesNumber') or '-'}, {described}"
    return "Series", f"{origin.slices[0].Modality}, {series}"


def finding(segment: Segment, notes: Sequence[str] = ()) -> Flowable:
    """Tell of one finding: where it is, its measurements and qualities, and what they rest on."""
    place = [each.meaning.lower() for each in (segment.laterality, segment.region) if each is not None]
    where = f", {' '.join(place)}" if segment.region is not None else ""
    story: list[Flowable] = [text(f"{segment.label}{where}", HEAD), *figures(segment.measurements, segment.qualities)]
    score = [certainty(segment.score)] if segment.score is not None else []
    return KeepTogether([*story, *(text(line, SMALL) for line in (*because(segment.qualities), *score, *notes))])


def figures(measurements: Sequence[Measurement], qualities: Sequence[Quality]) -> list[Flowable]:
    """Give what was measured, and what is said in codes, as one table."""
    rows = [(text(named(each), PLAIN), text(valued(each), PLAIN)) for each in measurements]
    rows += [(text(each.name.meaning, PLAIN), text(each.value.meaning, PLAIN)) for each in qualities]
    return [table(rows, (70 * mm, WIDTH - 70 * mm))] if rows else []


def about_model(origin: Origin) -> list[Flowable]:
    """Say what made it."""
    lines = [
        f"{origin.card.name} {origin.algorithm_version} by {origin.card.manufacturer}, device {origin.device_uid}.",
        origin.statement,
        CALCULATED,
        f"Report by {origin.equipment.model_name} {origin.equipment.version}. {origin.digests}",
    ]
    return [text("Model", HEAD), *(text(line, SMALL) for line in lines)]


def picture(image: Pictures.Image, width: float) -> Image:
    """Print a picture in a width."""
    data = BytesIO()
    image.save(data, "PNG")
    data.seek(0)
    return Image(data, width=width, height=width * image.height / image.width)


def table(rows: Sequence[tuple[Flowable, Flowable]], widths: tuple[float, float]) -> Table:
    """Print names and values, a thin line below each."""
    line = ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#cccccc"))
    tight = [(f"{side}PADDING", (0, 0), (-1, -1), 1.5) for side in ("TOP", "BOTTOM", "LEFT", "RIGHT")]
    return Table(list(rows), colWidths=widths, style=TableStyle([line, *tight, ("VALIGN", (0, 0), (-1, -1), "TOP")]))


def text(words: str, style: ParagraphStyle) -> Paragraph:
    """Print words in whatever letters they have."""
    _register_fonts()
    return Paragraph("".join(_lettered(run, font) for run, font in _runs(words.replace("\u2192", "->"))), style)


def _footer(origin: Origin) -> Any:
    def draw(canvas: Any, pages: Any) -> None:
        canvas.setFont(_FONT, 7)
        canvas.setFillColor(colors.HexColor("#9a4a00"))
        canvas.drawString(18 * mm, 12 * mm, NOT_FOR_DIAGNOSIS)
        canvas.setFillColor(colors.HexColor("#444444"))
        name = f"{origin.card.name} {origin.card.version}, page {canvas.getPageNumber()}"
        canvas.drawRightString(A4[0] - 18 * mm, 12 * mm, name)

    return draw


def _runs(words: str) -> Sequence[tuple[str, str]]:
    """Cut a text where it needs another font."""
    runs: list[tuple[str, str]] = []
    for letter in words:
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
    said = str(value or "")
    return f"{said[:4]}-{said[4:6]}-{said[6:8]}" if len(said) == 8 else said or "-"


def _register_fonts() -> None:
    known = pdfmetrics.getRegisteredFontNames()
    for name in (_FONT, _BOLD):
        if name not in known:
            pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    for name in (_CHINESE, _JAPANESE, _KOREAN):
        if name not in known:
            pdfmetrics.registerFont(UnicodeCIDFont(name))
