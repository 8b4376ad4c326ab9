"""A report page in one file: no other host, no script; readable on a dark screen and on paper."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

_LONG = 30  # characters from which a cell of a table breaks into lines
_STYLE = """
:root { --ink:#1c2430; --soft:#5b6675; --paper:#fbfbfa; --card:#ffffff; --rule:#dfe3e8; --accent:#2563a8;
  --s0:#2563a8; --s1:#c2571a; --s2:#2f8f5b; --s3:#8a4fb0; --s4:#b0284f; --s5:#6b7280; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ee; --soft:#9aa5b4; --paper:#14181e; --card:#1b2129;
  --rule:#313a46; --accent:#7db4ee; --s0:#7db4ee; --s1:#f0a06a; --s2:#7fd0a2; --s3:#c7a0e6; --s4:#f08aa6;
  --s5:#9aa5b4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0; } .soft { color: var(--soft); }
.warning { border-left: 3px solid var(--s1); padding: .1rem 0 .1rem .8rem; margin: 1rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.55rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; display: block; line-height: 1.35; }
.wide { overflow-x: auto; background: linear-gradient(to right, var(--paper) 30%, transparent) left / 3rem 100%,
  linear-gradient(to left, var(--paper) 30%, transparent) right / 3rem 100%,
  linear-gradient(to right, var(--rule), transparent) left / .9rem 100%,
  linear-gradient(to left, var(--rule), transparent) right / .9rem 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .3rem .6rem .3rem 0; white-space: nowrap; }
td.long { white-space: normal; min-width: 10rem; }
thead th { border-bottom: 1px solid var(--rule); } tbody tr + tr td { border-top: 1px solid var(--rule); }
figure thead th + th { text-align: center; }
td.shade { text-align: center; background: color-mix(in srgb, var(--accent) calc(var(--share) * 60%), transparent); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem; }
figcaption { font-size: .85rem; color: var(--soft); } figcaption b { color: var(--ink); }
.chart { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; } .tick { fill: var(--soft); } .axis, .legend { fill: var(--ink); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .guide { fill: none; stroke: var(--soft);
  stroke-dasharray: 4 4; } .band { opacity: .16; stroke: none; } .dot { opacity: .85; }
.curve.s0{stroke:var(--s0)} .curve.s1{stroke:var(--s1)} .curve.s2{stroke:var(--s2)} .curve.s3{stroke:var(--s3)}
.curve.s4{stroke:var(--s4)} .curve.s5{stroke:var(--s5)}
.dot.s0,.band.s0{fill:var(--s0)} .dot.s1,.band.s1{fill:var(--s1)} .dot.s2,.band.s2{fill:var(--s2)}
.dot.s3,.band.s3{fill:var(--s3)} .dot.s4,.band.s4{fill:var(--s4)} .dot.s5,.band.s5{fill:var(--s5)}
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem; }
.full { display: grid; gap: .8rem; } .charts + figure { margin-top: 1rem; }
.pictures img, .full img { width: 100%; height: auto; border-radius: 4px; display: block; margin-bottom: .4rem; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { font-size: 10.5pt; } main { max-width: none; padding: 0; } details > * { display: block; }
  figure, .card, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } summary { display: none; } }
"""


@dataclass(slots=True)
class Page:
    """A page that is written from top to bottom. Text is escaped; what `html` is given is not."""

    title: str
    subtitle: str
    _parts: list[str] = field(default_factory=list)

    def heading(self, text: str, level: int = 2) -> None:
        """Begin a section."""
        self.html(f"<h{level}>{escape(text)}</h{level}>")

    def paragraph(self, text: str, kind: str = "") -> None:
        """Write a paragraph; `kind` may be ``soft`` or ``warning``."""
        self.html(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")

    def cards(self, figures: Sequence[tuple[str, str, str]]) -> None:
        """Show the most important figures large: value, what it is, and its interval or target."""
        cards = (
            f'<div class="card"><b>{escape(value)}</b><span>{escape(what)}</span><span>{escape(more)}</span></div>'
            for value, what, more in figures
        )
        self.html(f'<div class="cards">{"".join(cards)}</div>')

    def table(self, markdown: Sequence[str]) -> None:
        """Show the lines of a Markdown table, the same that were printed."""
        head, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown)
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
        self.html(f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>')

    def charts(self, drawn: Sequence[tuple[str, str]]) -> None:
        """Show charts side by side: each an SVG element and its caption."""
        figures = (f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in drawn)
        self.html(f'<div class="charts">{"".join(figures)}</div>')

    def matrix(self, names: Sequence[str], rows: Sequence[Sequence[int]], caption: str) -> None:
        """Show a confusion matrix, shaded by the share of its row."""
        body = ""
        for name, row in zip(names, rows, strict=True):
            total = max(1, sum(row))
            cells = "".join(f'<td class="shade" style="--share:{count / total:.3f}">{count}</td>' for count in row)
            body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        table = f"<table><thead><tr><th>truth ↓ chosen →</th>{head}</tr></thead><tbody>{body}</tbody></table>"
        self.html(f"<figure>{table}<figcaption>{escape(caption)}</figcaption></figure>")

    def pictures(self, shown: Sequence[tuple[Path, str, str]], *, full: bool = False) -> None:
        """Show pictures with their titles and captions, inside the page itself."""
        figures = (
            f'<figure><img alt="{escape(title)}" src="{_inline(path)}">'
            f"<figcaption><b>{escape(title)}</b><br>{escape(caption)}</figcaption></figure>"
            for path, title, caption in shown
        )
        self.html(f'<div class="{"full" if full else "pictures"}">{"".join(figures)}</div>')

    def folded(self, summary: str, markdown: Sequence[str]) -> None:
        """Put a long table behind a line to open; on paper it is open."""
        self.html(f"<details><summary>{escape(summary)}</summary>")
        self.table(markdown)
        self.html("</details>")

    def facts(self, known: Sequence[tuple[str, str]]) -> None:
        """List names and values."""
        self.html(f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in known)}</dl>")

    def html(self, text: str) -> None:
        """Add markup as it is."""
        self._parts.append(text)

    def save(self, path: Path) -> None:
        """Write the page."""
        path.write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">"
            f'<style>{_STYLE}</style></head><body><main><h1>{escape(self.title)}</h1><p class="soft">'
            f"{escape(self.subtitle)}</p>{''.join(self._parts)}</main></body></html>\n",
            encoding="utf-8",
        )


def how_many(number: int, one: str, many: str = "") -> str:
    """Say how many there are, in the singular where it is one."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _cell(text: str) -> str:
    kind = ' class="long"' if len(text) > _LONG else ""
    return f"<td{kind}>{escape(text)}</td>"


def _inline(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode('ascii')}"
