"""What the PACS got for a series: the result, its voxels compared with a second reader's, or that there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import dcmread

from benchmarks.inputs.node import BRIGHT, Answer


def told(answers: Sequence[Answer], pacs: Mapping[str, Path], volume: hd.Volume | None) -> str:
    """Say what came back for a series, as a storescp has it.

    Parameters
    ----------
    pacs : mapping of str to pathlib.Path
        What the PACS has, by SOP Instance UID.
    volume : highdicom.Volume, optional
        What highdicom reads of the slices that the model got; None where it reads none.
    """
    if not answers:
        return "WRONG: no job"
    missing = [one for one in answers if one.delivery != "delivered" or one.sop_instance_uid not in pacs]
    if missing:
        return f"WRONG: {missing[0].state}, {missing[0].failure or ''}, {missing[0].kind} {missing[0].delivery}"
    said = [_object(one, pacs[str(one.sop_instance_uid)], volume) for one in answers]
    if answers[0].state == "completed" and volume is not None and all(one.kind != "seg" for one in answers):
        bright = np.count_nonzero(volume.array > BRIGHT)
        said.append(f"WRONG: no SEG of {bright} voxels" if bright else "no SEG, for nothing is bright")
    return ", ".join(said)


def _object(answer: Answer, path: Path, volume: hd.Volume | None) -> str:
    if answer.state != "completed":
        said = str(dcmread(path, stop_before_pixels=True).get("SeriesDescription", ""))
        return f"SR: {said.partition(')')[0]})" if said.startswith("NOT ANALYSED (") else f"WRONG: {said}"
    if answer.kind != "seg":
        return str(answer.kind).upper()
    return f"SEG {_compared(path, volume)}" if volume is not None else "SEG"


def _compared(path: Path, volume: hd.Volume) -> str:
    """Compare the voxels that a SEG marks with those that the model marks in another reader's volume."""
    try:
        found = hd.seg.segread(path).get_volume(combine_segments=True, skip_overlap_checks=True, atol=0.1)
        marked = np.asarray(found.match_geometry(volume, tol=0.02).array) > 0
    except Exception as error:  # noqa: BLE001 - the cell tells
        return f"NOT COMPARED: {str(error)[:100]}"
    wanted = np.asarray(volume.array) > BRIGHT
    wrong = int(np.count_nonzero(marked != wanted))
    return f"right ({np.count_nonzero(wanted):,} voxels)" if not wrong else f"WRONG in {wrong} voxels"
