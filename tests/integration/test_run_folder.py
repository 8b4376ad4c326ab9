"""`dicom-node run`: a folder in, result objects out, by the stages of the node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydicom import dcmread

from tests.ct import small_ct


def run(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "dicom_node",
        "run",
        str(folder),
        "-o",
        str(out),
        "--device",
        "cpu",
        "--model",
        "lung_ct",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_series_of_a_folder_gets_its_objects_or_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    whole = small_ct(folder / "whole", slices=24)
    gap = small_ct(folder / "gap", slices=24, change=lambda number, ds: None if number == 9 else ds)
    (folder / "notes.txt").write_text("no DICOM")
    done = run(folder, tmp_path / "out")
    assert done.returncode == 1, "one series has no result"
    sources = [dcmread(paths[0]) for paths in (whole, gap)]
    good, bad = (str(ds.SeriesInstanceUID) for ds in sources)
    sr = dcmread(tmp_path / "out" / good / "sr.dcm")
    assert (sr.StudyInstanceUID, sr.PatientID) == (sources[0].StudyInstanceUID, sources[0].PatientID)
    assert f"SR   {tmp_path / 'out' / good / 'sr.dcm'}" in done.stdout
    (problem,) = [line for line in done.stderr.splitlines() if bad in line]
    assert "gap" in problem.lower()
    assert not (tmp_path / "out" / bad).exists()
