"""Writes a program that is a model: it marks what is bright, by the side of the patient that it lies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Reads one NIfTI file or a folder of DICOM, answers in RAS whatever the axes of the image are. What else it does is
# decided by the first voxel.
SIDES = """
import os, subprocess, sys, time
from pathlib import Path

import numpy as np

source, target = map(Path, sys.argv[1:3])
print("device", sys.argv[3], "home", Path.home() == Path(os.environ["HOME"]), flush=True)
if source.is_dir():
    import pydicom

    slices = sorted(map(pydicom.dcmread, source.iterdir()), key=lambda ds: ds.InstanceNumber)
    stored = np.stack([ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept for ds in slices])
    first, last = slices[0], slices[-1]
    across, down = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    start, end = (np.array(ds.ImagePositionPatient, float) for ds in (first, last))
    rows_mm, columns_mm = map(float, first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, :4] = np.c_[across * columns_mm, down * rows_mm, (end - start) / (len(slices) - 1), start]
    voxels, affine = stored.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine
    assert not first.PatientName and first.SliceThickness
else:
    import nibabel

    image = nibabel.load(source)
    voxels, affine = np.asarray(image.dataobj), image.affine

mood = int(voxels[0, 0, 0])
if mood == 1:
    print("the last words of the program", file=sys.stderr)
    sys.exit(3)
if mood == 2:
    sys.exit()
if mood == 3:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("it started", child.pid, flush=True)
    time.sleep(600)

import nibabel

x = (np.indices(voxels.shape).reshape(3, -1).T @ affine[0, :3] + affine[0, 3]).reshape(voxels.shape)
labels = np.where(voxels > 100, np.where(x < -3, 1, 2), 0).astype(np.float32)  # in RAS the left is below zero
answer = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, affine))
if target.is_dir():
    data, header = np.asarray(answer.dataobj), answer.affine
    for value, name in ((1, "left side"), (2, "right side")):
        nibabel.save(nibabel.Nifti1Image((data == value).astype(np.uint8), header), target / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image((data > 0).astype(np.uint8), header), target / "both.nii")
else:
    nibabel.save(answer, target)
"""
FAILS, WRITES_NOTHING, HANGS = 1, 2, 3

COMMAND: dict[str, Any] = {
    "argv": ["{python}", "{model}/sides.py", "{input}", "{output}", "{device}"],
    "input": "nifti",
    "says": "1.2.3",
    "labels": {"1": "left side", "2": "right side"},
    "structures": [],
    "version": [],
    "devices": {"cpu": "the processor"},
    "environment": {},
    "reads": [],
    "parallel": False,
}

CARD = """\
name = "sides"
version = "1.2.3"
title = "Sides"
manufacturer = "test"
summary = "Marks what is bright."
training = "Not trained; not for clinical use."
timeout_s = 60
runner = "command"

[accepts]
modality = ["CT"]
min_slices = 2

[command]
argv = ["{python}", "{model}/sides.py", "{input}", "{output}", "{device}"]
version = ["{python}", "-c", "print('Sides, version 1.2.3')"]

[command.labels]
1 = "left kidney"
2 = "kidney_right"
"""


def write_program(folder: Path, *, code: str = SIDES) -> Path:
    """Write the folder of a model that is a program, without a card."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sides.py").write_text(code)
    return folder
