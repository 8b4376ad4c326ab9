"""HTML from templates: everything that is put into one is escaped, and nothing in one is script or style."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from pydicom.uid import UID
from starlette.responses import HTMLResponse, Response

import dicom_node
from dicom_node.admin.desk import desk_of
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import Visitor
from dicom_node.explain import zone_name
from dicom_node.viewer import PREFIX, installed

_NOTHING = Markup('<span class="dim">&ndash;</span>')
_UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("h", 3600), ("min", 60), ("s", 1))

# Where each state stands: colour and sign come from the class, the word is always there.
TONES = {
    "scheduled": "wait",
    "waiting": "wait",
    "receiving": "wait",
    "in progress": "busy",
    "running": "busy",
    "under way": "busy",
    "sending": "busy",
    "completed": "good",
    "complete": "good",
    "done": "good",
    "delivered": "good",
    "alive": "good",
    "active": "good",
    "canceled": "off",
    "stopped": "off",
    "disabled": "off",
    "paused": "warn",
    "proven": "good",
    "proof due": "wait",
    "proof failed": "bad",
    "proof no answer": "warn",
    "failed": "bad",
    "dead": "bad",
}


def page(request: Request, template: str, status: int = 200, /, **values: Any) -> Response:
    """Fill a template.

    Parameters
    ----------
    template : str
        Name of a file in templates/.
    values
        What the template speaks of, beside ``visitor``, ``node`` and ``version``.
    """
    desk = desk_of(request)
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    told: Mapping[str, Any] = {
        "visitor": visitor,
        "csrf": visitor.csrf if visitor else "",
        "node": desk.settings.node,
        "oidc": desk.settings.oidc,
        "version": dicom_node.__version__,
        "path": request.url.path,
        "now": utc_now(),
        "zone": zone_name(utc_now()),
        "viewer": PREFIX if installed(desk.settings.web.ohif) else "",
    }
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**{**told, **values}), status)


def moment(at: datetime | None) -> Markup:
    """Tell a time on this machine's clock, and how long ago it is."""
    if at is None:
        return _NOTHING
    local = at.astimezone()
    shown = f"{local:%H:%M:%S}" if local.date() == utc_now().astimezone().date() else f"{local:%Y-%m-%d %H:%M}"
    return Markup(
        '<time datetime="{}" title="{}">{} <span class="ago" data-ago>{}</span></time>'
    ).format(at.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %Z}", shown, ago(at))  # fmt: skip


def ago(at: datetime) -> str:
    """Say how long ago a time is, or in how long it comes."""
    seconds = (utc_now() - at).total_seconds()
    if abs(seconds) < 5:
        return "now"
    told = span(abs(seconds), parts=1) if abs(seconds) >= 10 else f"{abs(seconds):.0f} s"
    return f"{told} ago" if seconds > 0 else f"in {told}"


def uid_name(uid: str) -> str:
    """Say what the standard calls a UID (PS3.6 annex A)."""
    return str(UID(uid).name)


def span(seconds: float | timedelta | None, parts: int = 2) -> str:
    """Say a duration: ``2 h 5 min``."""
    if seconds is None:
        return "\N{EN DASH}"
    left = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if left < 10:
        return f"{left:.1f} s"
    said = []
    for name, size in _UNITS:
        number, left = divmod(left, size)
        if number:
            plural = "s" if number > 1 and len(name) > 3 else ""
            said.append(f"{number:.0f} {name}{plural}")
        elif said:
            break
        if len(said) == parts:
            break
    return " ".join(said)


def size(bytes_: float | None) -> str:
    """Say a number of bytes."""
    if bytes_ is None:
        return "\N{EN DASH}"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(bytes_) < 1000:
            return f"{bytes_:.0f} {unit}" if unit in ("B", "kB") else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.2f} TB"


def state(word: str) -> Markup:
    """Tell a state in its word, with a colour and a sign."""
    return Markup('<span class="state {}">{}</span>').format(TONES.get(word, "off"), word)


def copyable(text: str | None, shown: int = 0) -> Markup:
    """Show an identifier with a button that copies all of it; only its first `shown` characters, if given."""
    if not text:
        return _NOTHING
    short = text if not shown or len(text) <= shown else text[:shown] + "…"
    return Markup(
        '<span class="uid"><code title="{0}">{1}</code>'
        '<button type="button" class="copy" data-copy="{0}" aria-label="Copy {0}" title="Copy" hidden></button></span>'
    ).format(text, short)


def lines(text: str) -> Markup:
    """Show a text of several lines, those after the first set in, and commands in it as such."""
    first, *more = text.splitlines() or [""]
    rest = Markup("").join(Markup("<li>{}</li>").format(commands(one)) for one in more)
    return commands(first) + (Markup('<ul class="reasons">{}</ul>').format(rest) if more else "")


def commands(text: str) -> Markup:
    """Set what stands in backticks as a command."""
    code = Markup("<code>{}</code>")
    parts = [code.format(part) if n % 2 else escape(part) for n, part in enumerate(text.split("`"))]
    return Markup("").join(parts)


def date(text: str) -> str:
    """Write a DICOM date (PS3.5 6.2, VR DA) with dashes; anything else stays."""
    fine = len(text) == 8 and text.isdecimal()
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if fine else text


_ENVIRONMENT = Environment(
    loader=PackageLoader("dicom_node.admin"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"moment": moment, "ago": ago, "span": span, "bytes": size, "copy": copyable, "told": lines}
_ENVIRONMENT.filters |= {"state": state, "commands": commands, "date": date, "uid_name": uid_name}
