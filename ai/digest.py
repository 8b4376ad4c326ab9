"""Fingerprints of a bundle: they change when one byte of it changes. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_LEFT_OUT = "__pycache__"  # Python writes it while a bundle runs


def bundle_digest(bundle: Path, *programs: Path) -> str:
    """SHA-256 over every file of a bundle: its name inside the bundle, its size and its bytes.

    Parameters
    ----------
    bundle : pathlib.Path
        The bundle's root.
    programs : pathlib.Path
        Files outside of it that belong to it, by their full names.

    Returns
    -------
    str
        64 hexadecimal digits; the same wherever the bundle lies, whatever the order of the files on disk.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    return _digest(bundle, bundle.rglob("*"), programs)


def weights_digest(bundle: Path) -> str:
    """SHA-256 over the files under ``models/`` alone: what was trained. Otherwise as `bundle_digest`."""
    return _digest(bundle, (bundle / "models").rglob("*"))


def _digest(root: Path, paths: Iterable[Path], others: Iterable[Path] = ()) -> str:
    named = {
        path.relative_to(root).as_posix(): path for path in paths if path.is_file() and _LEFT_OUT not in path.parts
    }
    named |= {str(path): path for path in others}
    whole = hashlib.sha256()
    for name in sorted(named):
        with named[name].open("rb") as file:
            contents = hashlib.file_digest(file, "sha256")
            whole.update(f"{name}\0{file.tell()}\0".encode())
        whole.update(contents.digest())
    return whole.hexdigest()
