"""Small words: times, counts, statuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def status_text(status: int) -> str:
    """Say a C-STORE status in words (PS3.4 B.2.3, PS3.7 annex C)."""
    known = {
        0x0000: "Success",
        0x0111: "Duplicate SOP Instance",
        0x0122: "SOP Class not supported",
        0x0124: "Not authorized",
        0x0213: "Resource limitation",
    }
    ranges = {0xA7: "Out of resources", 0xA9: "Data set does not match SOP Class", 0xB0: "Warning"}
    word = known.get(status) or ranges.get(status >> 8) or ("Cannot understand" if status >> 12 == 0xC else "")
    return f"0x{status:04X}" + (f" {word}" if word else "")


def clock_time(at: datetime) -> str:
    """Say a time on the clock of this machine, and in which zone that is: ``2026-11-24 10:04:16 CET``."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} {zone_name(at)}"


def zone_name(at: datetime) -> str:
    """Name the zone of this machine's clock at a time; where it has no letters, its distance: ``UTC-03:00``."""
    local = at.astimezone()
    return name if (name := f"{local:%Z}").isalpha() else f"UTC{local.isoformat()[-6:]}"


def count(number: int, thing: str) -> str:
    """Say how many, in the singular or the plural."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def bare(text: str) -> str:
    """Take the full stop off a sentence that goes on."""
    return text.strip().rstrip(".")


def found(summary: Mapping[str, Any]) -> str:
    """Say what a result holds besides its segments: ``1 nodule, Lung-RADS 4B (calculated)``; empty when nothing.

    Parameters
    ----------
    summary : mapping
        Of the result's row.
    """
    kinds = Counter(s["detected"].lower() for s in summary.get("segments") or () if "detected" in s)
    said = [count(number, kind) for kind, number in kinds.items()]
    said += [count(len(points), "point")] if (points := summary.get("points")) else []
    if lies := summary.get("registration"):
        said.append(registered(lies))
    said += images(summary)
    said += [f"{quality['value']} (calculated)" for quality in summary.get("qualities") or ()]
    return ", ".join(said)


def registered(lies: Mapping[str, Any]) -> str:
    """Say how one series lies on another: ``after on before: moved 3.2 mm on average, at most 12 mm``."""
    far = f"moved {lies['mean_mm']:g} mm on average, at most {lies['largest_mm']:g} mm"
    folded = f", {lies['folded_percent']:g} % folded" if lies["folded_percent"] else ""
    return f"{lies['moving']} on {lies['fixed']}: {far}{folded}"


def images(summary: Mapping[str, Any]) -> list[str]:
    """Say of each image that the model answered with what it holds: ``Denoised CT: mean 38.5 HU, ...``."""
    return [f"{each['label']}: {each['said']}" for each in summary.get("maps") or ()]


def left_out(summary: Mapping[str, Any]) -> list[str]:
    """Say what was not run or not reported, and why: ``Nodule detection not run: slice spacing 8 mm``."""
    return [f"{each['what']} {each['how']}: {each['why']}" for each in summary.get("not_run") or ()]
