"""Registrations read back from their own bytes: voxels of the fixed series end where the model's answer put them.

The places are those that the headers of the fixed slices name, and the way is the standard's: PS3.3 C.20.2.1.1 for a
matrix, C.20.3.1.1 for a field, whose vectors are interpolated between its points.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy import ndimage

from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis, Registered
from dicom_node.results.registration import moving_frame

Places = NDArray[np.float64]
_VOXELS = 0.1
_EACH_WAY = 12


def prove_registration(data: bytes, analysis: Analysis) -> None:
    """Take voxels to the moving series as the model did, and back by the object: each has to be where it was.

    Parameters
    ----------
    data : bytes
        The file as it will be stored and sent.
    analysis : Analysis
        What it was built from.

    Raises
    ------
    ResultError
        If it names other images or another frame of reference, or does not lead where the model's answer led.
    """
    ds = dcmread(BytesIO(data))
    item = _moving(ds, ds.RegistrationSequence, "FrameOfReferenceUID", analysis)
    places, model = _voxels(analysis), _model(analysis)
    back = _applied(item.MatrixRegistrationSequence[0].MatrixSequence[0], _moved(places, np.zeros(3), model.matrix))
    _prove_near(back, places, analysis)


def prove_deformation(data: bytes, analysis: Analysis) -> None:
    """Take voxels to the moving series by the object, and as the model did: as `prove_registration`."""
    ds = dcmread(BytesIO(data))
    item = _moving(ds, ds.DeformableRegistrationSequence, "SourceFrameOfReferenceUID", analysis)
    model = _model(analysis)
    assert model.vectors is not None
    assert model.affine is not None
    inverse = np.linalg.inv(model.affine)
    places = _voxels(analysis)
    index = places @ inverse[:3, :3].T + inverse[:3, 3]
    covered = ((index >= 0) & (index <= np.array(model.vectors.shape[:3]) - 1)).all(axis=1)
    if not covered.any():
        raise ResultError("the model's field covers none of the voxels of the fixed series")
    places, index = places[covered], index[covered]
    expected = _moved(places, _between(model.vectors, index), model.matrix)
    found = places + _read(item.DeformableRegistrationGridSequence[0], places)
    for matrix in item.get("PostDeformationMatrixRegistrationSequence", ()):
        found = _applied(matrix, found)
    _prove_near(found, expected, analysis)


def _moving(ds: Dataset, items: Sequence[Dataset], frame: str, analysis: Analysis) -> Dataset:
    """Find the item of the moving series, once frames of reference and images are proved to be the right ones."""
    origin, said = analysis.origin, analysis.findings.registration
    assert said is not None
    frames = [str(origin.slices[0].FrameOfReferenceUID), moving_frame(origin, said)]
    if str(ds.FrameOfReferenceUID) != frames[0] or [str(item[frame].value) for item in items] != frames:
        raise ResultError("the registration leads from or to another frame of reference than those of its series")
    for item, images in zip(items, (origin.slices, origin.others), strict=True):
        named = {str(reference.ReferencedSOPInstanceUID) for reference in item.ReferencedImageSequence}
        if named != {str(image.SOPInstanceUID) for image in images}:
            raise ResultError("the registration names other images than those that the model was shown")
    return items[1]


def _model(analysis: Analysis) -> Registered:
    assert analysis.marks.registration is not None
    return analysis.marks.registration


def _voxels(analysis: Analysis) -> Places:
    """Some voxels of the fixed series, from edge to edge, by the headers of their slices (PS3.3 C.7.6.2.1.1)."""
    chosen = [np.unique(np.linspace(0, size - 1, _EACH_WAY).astype(int)) for size in analysis.shape]
    row, column = (each[..., None] for each in np.meshgrid(chosen[1], chosen[2], indexing="ij"))
    found = []
    for k in chosen[0]:
        header = analysis.origin.slices[k]
        cosines, (down, across) = np.array(header.ImageOrientationPatient, float), map(float, header.PixelSpacing)
        place = np.array(header.ImagePositionPatient, float)
        found.append(place + column * across * cosines[:3] + row * down * cosines[3:])
    return np.concatenate(found).reshape(-1, 3)


def _read(grid: Dataset, places: Places) -> Places:
    """Vectors of the object at some places."""
    cosines = np.array(grid.ImageOrientationPatient, float)
    axes = np.stack([cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])])
    index = (places - np.array(grid.ImagePositionPatient, float)) @ axes.T / np.array(grid.GridResolution, float)
    columns, rows, planes = grid.GridDimensions
    vectors = np.frombuffer(grid.VectorGridData, "<f4").reshape(planes, rows, columns, 3)
    return _between(vectors, index[:, ::-1])


def _between(vectors: NDArray[np.float32], index: Places) -> Places:
    at = [ndimage.map_coordinates(vectors[..., n], index.T, order=1, mode="nearest") for n in range(3)]
    return np.stack(at, axis=-1).astype(np.float64)


def _moved(places: Places, vectors: Places, matrix: NDArray[np.float64]) -> Places:
    return np.asarray((places + vectors) @ matrix[:3, :3].T + matrix[:3, 3], np.float64)


def _applied(item: Dataset, places: Places) -> Places:
    return _moved(places, np.zeros(3), np.array(item.FrameOfReferenceTransformationMatrix, float).reshape(4, 4))


def _prove_near(found: Places, expected: Places, analysis: Analysis) -> None:
    assert analysis.findings.registration is not None
    apart = np.linalg.norm(found - expected, axis=1).max()
    if apart > _VOXELS * analysis.findings.registration.voxel_mm:
        raise ResultError(f"the registration leads up to {apart:.2f} mm away from where the model's answer does")
