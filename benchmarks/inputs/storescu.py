"""What dcmtk's storescu is told so that it sends each file as it is, and what it says of the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.peers.missing import need

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_STATUS = re.compile(r"DIMSE Status +: (0x[0-9a-f]{4})")
_COMMENT = re.compile(r"\(0000,0902\) LO \[(.*?)\] +#")


def as_they_are(files: Sequence[Path], config: Path) -> list[str]:
    """Write a configuration that proposes the syntax of each file for its class; the command that uses it."""
    command = [need("storescu"), "-d", "-nh", "-ta", "60", "-td", "60"]
    pairs = sorted({pair for file in files for pair in _pairs(file)})
    if not pairs:
        return [*command, "-xe"]
    syntaxes = sorted({syntax for _, syntax in pairs})
    names = {syntax: f"Syntax{number}" for number, syntax in enumerate(syntaxes, start=1)}
    lines = ["[[TransferSyntaxes]]"]
    for syntax, name in names.items():
        lines += [f"[{name}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[All]"]
    lines += [f"PresentationContext{n} = {sop_class}\\{names[s]}" for n, (sop_class, s) in enumerate(pairs, start=1)]
    lines += ["[[Profiles]]", "[All]", "PresentationContexts = All", ""]
    config.write_text("\n".join(lines))
    return [*command, "-xf", str(config), "All"]


def _pairs(file: Path) -> set[tuple[str, str]]:
    """SOP class and transfer syntaxes of a file; the plain ones where it does not name any."""
    try:
        ds = dcmread(file, force=True, specific_tags=["SOPClassUID"])
        sop_class, syntax = str(ds.SOPClassUID), ds.file_meta.get("TransferSyntaxUID")
    except Exception:  # noqa: BLE001 - what cannot be read here dcmtk may read
        return set()
    return {(sop_class, str(one)) for one in ([syntax] if syntax else _PLAIN)}


def problem_in(said: str) -> str:
    """Find the last refusal in what storescu says, as status and comment, or else its last error; empty for success."""
    refused = [found[1] for found in _STATUS.finditer(said) if found[1] != "0x0000"]
    if refused:
        comments = [found[1].strip() for found in _COMMENT.finditer(said)]
        return f"0x{refused[-1][2:].upper()}: {comments[-1] if comments else 'no comment'}"
    errors = [line[3:] for line in said.splitlines() if line.startswith(("E: ", "F: "))]
    return errors[-1] if errors else ""
