"""The forms in which public sets come, and which of them a folder has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ai.data.brats import brats_entries, is_brats
from ai.data.case import Entry
from ai.data.dicom_cases import dicom_entries
from ai.data.isbi import is_isic, is_lits, isic_entries, lits_entries
from ai.data.luna16 import is_luna16, luna16_entries
from ai.data.msd import is_msd, msd_entries
from ai.data.prepared import is_prepared, prepared_entries

_Known = tuple[Callable[[Path], bool], Callable[[Path], list[Entry]]]
FORMATS: Mapping[str, _Known] = MappingProxyType(
    {
        "prepared": (is_prepared, prepared_entries),
        "luna16": (is_luna16, luna16_entries),
        "msd": (is_msd, msd_entries),
        "brats": (is_brats, brats_entries),
        "lits": (is_lits, lits_entries),
        "isic": (is_isic, isic_entries),
    }
)
DICOM = "dicom"


def find_entries(root: Path, form: str = "", wanted: Sequence[str] = ()) -> tuple[str, list[Entry]]:
    """Find the cases of a source.

    Parameters
    ----------
    root : pathlib.Path
        A folder; a zip file is taken for DICOM.
    form : str
        One of `FORMATS`, or ``dicom``; found out without it.
    wanted : sequence of str
        Structures to keep, for DICOM.

    Returns
    -------
    form : str
        What it is.
    entries : list of Entry
        Its cases, not yet read.

    Raises
    ------
    ValueError
        If there is no such form, or no case.
    """
    if not root.exists():
        raise ValueError(f"There is no {root}.")
    if form and form not in (*FORMATS, DICOM):
        raise ValueError(f"There is no reader for {form!r}; there are: {', '.join((*FORMATS, DICOM))}.")
    if not form:
        form = next((name for name, (fits, _) in FORMATS.items() if root.is_dir() and fits(root)), DICOM)
    entries = dicom_entries(root, wanted) if form == DICOM else FORMATS[form][1](root)
    if not entries:
        raise ValueError(f"No case was found in {root} (read as {form}).")
    return form, entries
