"""``models.toml`` beside the settings: which models an administrator switched off, and which bytes he reviewed.

    [spleen_ct]
    digest = "3f1c…"        # the SHA-256 of the whole bundle; another one is not loaded
    enabled = false

A model that it does not name is on, and not pinned.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import ConfigurationError

PINS = "models.toml"


@dataclass(frozen=True, slots=True)
class Pin:
    """What was decided about one model; `digest` is empty for one that is not pinned."""

    digest: str = ""
    enabled: bool = True


def read_pins(folder: Path) -> dict[str, Pin]:
    """Read the file of a settings' folder; there need not be one.

    Raises
    ------
    ConfigurationError
        If it is not what `write_pins` writes.
    """
    file = folder / PINS
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    pins = {}
    for name, table in tables.items():
        digest, enabled = (table.get("digest", ""), table.get("enabled", True)) if isinstance(table, dict) else (0, 0)
        if not isinstance(digest, str) or not isinstance(enabled, bool) or set(table) - {"digest", "enabled"}:
            raise ConfigurationError(f'{file}: {name}: give digest = "…" and enabled = true or false, nothing else')
        pins[name] = Pin(digest, enabled)
    return pins


def write_pins(folder: Path, pins: Mapping[str, Pin]) -> None:
    """Write the file anew, whole or not at all."""
    lines = ["# Written by `dicom-node models`: what was switched off, and the bytes that were reviewed.", ""]
    for name, pin in sorted(pins.items()):
        lines += [f"[{json.dumps(name)}]", f'digest = "{pin.digest}"', f"enabled = {str(pin.enabled).lower()}", ""]
    new = folder / f".{PINS}.new"
    new.write_text("\n".join(lines), encoding="utf-8")
    new.replace(folder / PINS)
