"""How the moving series lies on the fixed one: by a matrix (PS3.3 A.39.1), or by a field of vectors (A.39.2).

The two run opposite ways. A matrix takes places of the moving frame of reference into the fixed one (C.20.2.1.1); a
field says of each place of the fixed frame of reference where to look in the moving one (C.20.3.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import DeformableSpatialRegistrationStorage, SpatialRegistrationStorage
from pydicom.valuerep import format_number_as_ds

from dicom_node.domain.finding import Registration
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    Origin,
    complete,
    content_label,
    copy_body_part,
    fit,
    instance_attributes,
    merged_references,
    plain_object,
    series_description,
)

Matrix = NDArray[np.float64]
_SQUARE = 1e-3  # cosine of the angle between two axes of a field beyond which they are not perpendicular
_EXACT = 1e-6


def build_registration(analysis: Analysis) -> Dataset | None:
    """Write a Spatial Registration; None where the model gave a field, or registers nothing."""
    found, said = analysis.marks.registration, analysis.findings.registration
    if found is None or said is None or found.vectors is not None:
        return None
    origin = analysis.origin
    made = _begun(origin, said, SpatialRegistrationStorage, "registration", 15)
    made.RegistrationSequence = [
        _by_matrix(origin.slices, made.FrameOfReferenceUID, np.eye(4), said.fixed),
        _by_matrix(
            origin.others, moving_frame(origin, said), np.asarray(np.linalg.inv(found.matrix), np.float64), said.moving
        ),
    ]
    complete(made, origin)
    return made


def build_deformation(analysis: Analysis) -> Dataset | None:
    """Write a Deformable Spatial Registration; None where the model gave a matrix, or registers nothing.

    Raises
    ------
    ValueError
        If the axes of the field are not perpendicular: the standard has no such grid.
    """
    found, said = analysis.marks.registration, analysis.findings.registration
    if found is None or said is None or found.vectors is None or found.affine is None:
        return None
    origin = analysis.origin
    made = _begun(origin, said, DeformableSpatialRegistrationStorage, "deformation", 16)
    fixed = _of_images(origin.slices, said.fixed)
    fixed.SourceFrameOfReferenceUID = made.FrameOfReferenceUID
    fixed.PreDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    moving = _of_images(origin.others, said.moving)
    moving.SourceFrameOfReferenceUID = moving_frame(origin, said)
    moving.DeformableRegistrationGridSequence = [_grid(found.vectors, found.affine)]
    if not np.allclose(found.matrix, np.eye(4), atol=_EXACT):
        moving.PostDeformationMatrixRegistrationSequence = [_matrix(found.matrix)]
    made.DeformableRegistrationSequence = [fixed, moving]
    complete(made, origin)
    return made


def moving_frame(origin: Origin, said: Registration) -> str:
    """Frame of reference of the moving series; one of our own where it names none (it is of type 1)."""
    if said.is_one_frame:
        return str(origin.slices[0].FrameOfReferenceUID)
    return said.moving_frame_uid or origin.uid("moving frame of reference")


def _begun(origin: Origin, said: Registration, sop_class_uid: str, part: str, position: int) -> Dataset:
    made = plain_object(
        origin, sop_class_uid, "REG", instance_attributes(origin, part, position, series_description(origin, part))
    )
    made.ContentLabel = content_label(origin)
    made.ContentDescription = fit(f"{said.moving} on {said.fixed} {RESEARCH_ONLY}", LO_LENGTH)
    made.ContentCreatorName = ""
    made.FrameOfReferenceUID = origin.slices[0].FrameOfReferenceUID
    made.PositionReferenceIndicator = origin.slices[0].PositionReferenceIndicator
    copy_body_part(made, origin)
    made.ReferencedSeriesSequence = [_series(images) for images in (origin.slices, origin.others)]
    return made


def _series(images: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = images[0].SeriesInstanceUID
    item.ReferencedInstanceSequence = merged_references(images)
    for reference in item.ReferencedInstanceSequence:
        reference.pop("ReferencedFrameNumber", None)
    return item


def _by_matrix(images: Sequence[Dataset], frame_uid: str, matrix: Matrix, role: str) -> Dataset:
    item = _of_images(images, role)
    registration = Dataset()
    registration.FrameOfReferenceTransformationComment = item.FrameOfReferenceTransformationComment
    registration.RegistrationTypeCodeSequence = item.RegistrationTypeCodeSequence
    del item.FrameOfReferenceTransformationComment, item.RegistrationTypeCodeSequence
    registration.MatrixSequence = [_matrix(matrix)]
    item.FrameOfReferenceUID = frame_uid
    item.MatrixRegistrationSequence = [registration]
    return item


def _of_images(images: Sequence[Dataset], role: str) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = merged_references(images)
    item.FrameOfReferenceTransformationComment = fit(role, LO_LENGTH)
    item.RegistrationTypeCodeSequence = [hd.sr.CodedConcept.from_code(codes.DCM.ImageContentBasedAlignment)]
    return item


def _matrix(matrix: Matrix) -> Dataset:
    item = Dataset()
    item.FrameOfReferenceTransformationMatrix = _decimals(matrix.ravel())
    item.FrameOfReferenceTransformationMatrixType = _kind_of(matrix)
    return item


def _kind_of(matrix: Matrix) -> str:
    """PS3.3 C.20.2.1.2."""
    squared = matrix[:3, :3].T @ matrix[:3, :3]
    if np.allclose(squared, np.eye(3), atol=_EXACT):
        return "RIGID"
    return "RIGID_SCALE" if np.allclose(squared, np.diag(np.diag(squared)), atol=_EXACT) else "AFFINE"


def _grid(vectors: NDArray[np.float32], affine: Matrix) -> Dataset:
    """Lay the field out by column, row and plane; planes follow each other along the normal of the first two."""
    resolution = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    across, down, through = (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).T[::-1]
    normal = np.cross(across, down)
    if abs(across @ down) > _SQUARE or abs(abs(normal @ through) - 1) > _SQUARE:
        raise ValueError("the axes of the model's field are not perpendicular")
    start = affine[:3, 3]
    if normal @ through < 0:
        vectors, start = vectors[::-1], start + affine[:3, 0] * (len(vectors) - 1)
    item = Dataset()
    item.ImagePositionPatient = _decimals(start)
    item.ImageOrientationPatient = _decimals(np.concatenate([across, down]))
    item.GridDimensions = list(vectors.shape[2::-1])
    item.GridResolution = resolution.tolist()
    item.VectorGridData = np.ascontiguousarray(vectors, "<f4").tobytes()
    return item


def _decimals(numbers: NDArray[np.float64]) -> list[str]:
    return [format_number_as_ds(float(number) + 0.0) for number in numbers]
