"""The field's own checkers over result objects: every message that is no known false alarm."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydicom import config, dcmread

from tests.peers.missing import need

# What these tools (dicom3tools 20220618, DCMTK 3.6.7) say of correct objects. Anything else is a finding.
FALSE_ALARMS = (
    # IHE AI Results 6.5.3.1 asks for the Device UID; the tool's tables are older than its place in the sequence.
    r"^Warning - </ContributingEquipmentSequence\(0018,a001\)\[[0-9]+\]/DeviceUID\(0018,1002\)> - "
    r"Attribute is not present in standard DICOM IOD$",
    # An SR has the accession number in its Referenced Request Sequence as well.
    r"^Warning - Different information entities for attribute - Element=<AccessionNumber>",
    r"^W: The VR checker does not support this Specific Character Set: ISO_IR 192$",
    # PS3.3 C.8.32.2.1.1 has it for the fourth value of a parametric map's Image Type; the tool's table does not.
    r"^Warning - </(SharedFunctionalGroupsSequence\(5200,9229\)\[1\]/ParametricMapFrameTypeSequence\(0040,9092\)\[1\]"
    r"/FrameType\(0008,9007\)|ImageType\(0008,0008\))\[4\]> - Unrecognized defined term = <QUANTITY>$",
    r"^W: Check for template constraints not yet supported$",
    # Codes that no public scheme has: PS3.16 8.2 reserves 99 for them, and (0008,0110) names the scheme.
    r"^Warning - <.*/CodingSchemeDesignator\(0008,0102\)\[1\]> - Unrecognized defined term = <99(DICOMNODE|PHANTOM)>$",
)
# They do not know label maps at all: their tables are older than Supplement 243.
OF_LABEL_MAPS = (
    r"^Error - Information Object Not found$",
    r"SegmentNumber not monotonically increasing .* SegmentSequence item number 1 .* with SegmentNumber of 0$",
    r"^Warning - Unrecognized SOP Class - 1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.7 - so cannot determine ",
    r"^Warning - Different information entities for attribute - .* versus <Unknown> for file",
)
LABEL_MAP, SEGMENTATION = b"1.2.840.10008.5.1.4.1.1.66.7", b"1.2.840.10008.5.1.4.1.1.66.4"
_OF_LABEL_MAP = re.compile("|".join(OF_LABEL_MAPS))
_FALSE_ALARM = re.compile("|".join(f"(?:{pattern})" for pattern in FALSE_ALARMS))


def problems(*objects: bytes, sources: list[Path]) -> list[str]:
    """Check result objects with dciodvfy, dcentvfy, dsrdump, dcmpschk, dcmqi and pydicom.

    Parameters
    ----------
    objects : bytes
        Result files of any kind.
    sources : list of pathlib.Path
        The images that they were made from.

    Returns
    -------
    list of str
        One line for each message that is no known false alarm; empty when the objects are clean.
    """
    found: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, content in enumerate(objects):
            path = Path(scratch) / f"{number}.dcm"
            path.write_bytes(content)
            read = dcmread(path, stop_before_pixels=True)
            modality = str(read.Modality)
            if modality == "SR":  # they refuse a whole report that refers to a label map; what else it says is checked
                path.write_bytes(content.replace(LABEL_MAP, SEGMENTATION))
            messages = [
                message
                for message in _messages(path, modality, sources, Path(scratch))
                if not (read.SOPClassUID == LABEL_MAP.decode() and _OF_LABEL_MAP.search(message))
            ]
            found += [f"{modality}: {m}" for m in messages if m.strip() and not _FALSE_ALARM.search(m)]
    return found


def _messages(path: Path, modality: str, sources: list[Path], scratch: Path) -> Iterator[str]:
    inherited = _run("dciodvfy", "-new", str(sources[0]))  # an empty Study Time of the source stays empty in the result
    for message in _run("dciodvfy", "-new", str(path)):
        if message.startswith(("Error", "Warning", "Abort")) and message not in inherited:
            yield message
    yield from _run("dcentvfy", *map(str, sources), str(path))
    if modality in ("SR", "KO"):
        yield from _run("dsrdump", str(path), only_errors=True)
    if modality == "SR":
        yield from _must("tid1500reader", "--inputDICOM", str(path), "--outputMetadata", str(scratch / "sr.json"))
    if modality == "PR":
        yield from _must("dcmpschk", str(path))
    if modality == "SEG":
        arguments = ("--outputDirectory", str(scratch), "--prefix", "seg", "-t", "nii", "--mergeSegments")
        yield from _must("segimage2itkimage", "--inputDICOM", str(path), *arguments)
    yield from _strictly_read(path)


def _run(program: str, *arguments: str, only_errors: bool = False) -> list[str]:
    done = subprocess.run([need(program), *arguments], capture_output=True, check=False, timeout=300)
    text = done.stderr if only_errors else done.stdout + done.stderr
    return text.decode(errors="replace").splitlines()


def _must(program: str, *arguments: str) -> Iterator[str]:
    done = subprocess.run([need(program), *arguments], capture_output=True, check=False, timeout=300)
    if done.returncode != 0:
        yield f"{program} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"


def _strictly_read(path: Path) -> Iterator[str]:
    """Touch every element while pydicom raises for whatever breaks its value representation."""
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    try:
        for element in dcmread(path, stop_before_pixels=True).iterall():
            element.value  # noqa: B018 - reading it is the check
    except ValueError as error:
        yield f"pydicom: {error}"
    finally:
        config.settings.reading_validation_mode = before
