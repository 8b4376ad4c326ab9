"""What a model is given and what it gives back: arrays in DICOM patient space, and the reasons it may fail.

Nothing here imports torch or MONAI: the node that asks and the child process that answers share only this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
Index = tuple[float, float, float]
_NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


class ModelError(Exception):
    """A model gave no usable answer. The message is a sentence for an administrator, without patient data.

    Attributes
    ----------
    steps_s : mapping of str to float
        Seconds spent in each step, as far as it came; those of `Prediction`.
    printed : str
        The last that the model printed, on both of its outputs.
    """

    steps_s: Mapping[str, float] = MappingProxyType({})
    printed: str = ""


class ModelTimeout(ModelError):
    """The model did not answer in the time it was given; its process was killed."""


class ModelCancelled(ModelError):
    """The caller no longer wanted the answer; the model's process was killed."""


class ModelCrashed(ModelError):
    """The model's process died or its code raised an error."""


class ModelOutOfMemory(ModelCrashed):
    """The model asked for more memory than it was allowed or than the machine has."""


class ModelInvalidOutput(ModelError):
    """The model answered with something unusable: NaN, another grid, or an output it never declared."""


class BundleError(ModelError):
    """The bundle's folder is incomplete or contradicts itself; no retry helps."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One image volume on a regular grid.

    Parameters
    ----------
    array : numpy.ndarray of float32, shape (slices, rows, columns)
        Rescaled stored values: Hounsfield units for CT.
    affine : numpy.ndarray of float64, shape (4, 4)
        Maps (slice, row, column, 1) to LPS patient coordinates in mm, at the voxel's centre (PS3.3 C.7.6.2.1.1).
    modality : str
        DICOM Modality (0008,0060).
    is_single : bool
        Whether it is one image that stands alone (a radiograph), of one slice; its affine is then its own, not the
        patient's.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    modality: str = "CT"
    is_single: bool = False

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between voxel centres: (between slices, between rows, between columns), in mm."""
        between = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(between[0]), float(between[1]), float(between[2])


Images = Volume | Mapping[str, Volume]  # several by their roles, the first of which has the grid of the answer


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """Outputs that do not overlap, as one array.

    Parameters
    ----------
    array : numpy.ndarray of uint8, shape (slices, rows, columns)
        On the grid of the volume that was asked about; 0 is background.
    names : mapping of int to str
        Each value that `array` may hold, with the bundle's own name of that output. A value may be absent from
        `array`: an organ that is not there is an answer, not an error.
    """

    array: NDArray[np.uint8]
    names: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing that a model looks for one by one, such as a nodule.

    Parameters
    ----------
    output : str
        The bundle's own name of what it looks for, e.g. ``nodule``.
    score : float
        How sure the model is that it is there, 0 to 1.
    classes : mapping of str to mapping of str to float
        For each question that the model answers of it, the probability of each answer: ``{"attenuation": {"solid":
        0.9, "part-solid": 0.1, "ground-glass": 0.0}}``. Empty for a model that only finds.
    outlined : bool
        Whether its mask is its outline; else it is the box that the model drew around it.
    box : (3 floats, 3 floats), optional
        Of a box its lowest and highest index (slice, row, column) on the grid of the volume, whole at the centres of
        voxels. Where boxes overlap this is the whole of each, its mask only what the surer ones leave.
    """

    output: str
    score: float
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    outlined: bool = True
    box: tuple[Index, Index] | None = None


@dataclass(frozen=True, slots=True)
class Landmark:
    """One point that a model names, such as where a valve is attached.

    Parameters
    ----------
    output : str
        The bundle's own name of it.
    at : (float, float, float)
        Index (slice, row, column) on the grid of the volume, whole at the centres of voxels. It may lie outside. Of a
        model of 2-D images each slice has every point.
    """

    output: str
    at: Index


def _unmoved() -> NDArray[np.float64]:
    return np.eye(4)


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How a moving image lies on a fixed one: what is at a place p of the fixed image is at matrix (p + v(p)) of it.

    All of it is LPS, in mm; v(p) lies between the vectors around p.

    Parameters
    ----------
    vectors : numpy.ndarray of float32, shape (slices, rows, columns, 3), optional
        v on a grid of its own; None where the matrix says all.
    affine : numpy.ndarray of float64, shape (4, 4), optional
        Maps (slice, row, column, 1) of `vectors` to LPS.
    matrix : numpy.ndarray of float64, shape (4, 4)
    """

    vectors: NDArray[np.float32] | None = None
    affine: NDArray[np.float64] | None = None
    matrix: NDArray[np.float64] = field(default_factory=_unmoved)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model said about one volume.

    Parameters
    ----------
    label_maps : tuple of LabelMap
        Outputs that may overlap lie in different maps.
    detections : tuple of Detection
        In the order of their scores, surest first. The mask of the n-th, counted from 1, is named ``nodule/n`` after
        its output.
    instances : numpy.ndarray of uint8, shape (slices, rows, columns), optional
        On the grid of the volume: n where the n-th detection is, 0 elsewhere. None for a model that detects nothing
        one by one.
    saliency : numpy.ndarray of uint8, shape (slices, rows, columns), optional
        What spoke for each detection, in and around it: 0 nothing, 255 the most that spoke for any one of them.
    probabilities : mapping of str to numpy.ndarray of uint8, shape (slices, rows, columns)
        Of the outputs of which the model says how likely each voxel belongs to them: 0 not at all, 255 certainly.
    classes : mapping of str to mapping of str to float
        For each question that the model answers of the whole image, how sure it is of each answer, 0 to 1.
    values : mapping of str to float
        Numbers that the model gives of the whole image.
    steps_s : mapping of str to float
        Seconds spent in each step, in order: ``load`` (zero when the model was warm), ``preprocess``, ``infer``,
        ``postprocess``.
    device : str
        Where it was computed: ``cpu``, ``cuda:0``.
    memory_mib, gpu_memory_mib : int
        The most memory that the model's process, or those of its program, have held; 0 where that is not known.
    printed : str
        The last that the model printed, on both of its outputs.
    points : tuple of Landmark
        Points that the model names.
    registration : Registration, optional
        How the second image that it was shown lies on the first.
    images : mapping of str to numpy.ndarray of float32, shape (slices, rows, columns)
        Images that the model answers with, on the grid of the volume: a denoised scan, a map of distances.
    """

    label_maps: tuple[LabelMap, ...]
    steps_s: Mapping[str, float]
    device: str
    detections: tuple[Detection, ...] = ()
    instances: NDArray[np.uint8] | None = None
    saliency: NDArray[np.uint8] | None = None
    probabilities: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    memory_mib: int = 0
    gpu_memory_mib: int = 0
    printed: str = ""
    points: tuple[Landmark, ...] = ()
    registration: Registration | None = None
    images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    _boxes: dict[int, list[Box | None]] = field(default_factory=dict, init=False, repr=False)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Voxels of one output, shape (slices, rows, columns); see `box` and `within` for a small part of them.

        Parameters
        ----------
        name : str
            The bundle's name of the output.

        Raises
        ------
        ModelInvalidOutput
            If the model has no output of that name.
        """
        array, value = self._find(name)
        return np.asarray(array == value, dtype=np.bool_)

    def shape(self, name: str) -> tuple[int, ...]:
        """Size of the grid of one output.

        Raises
        ------
        ModelInvalidOutput
            If the model has no output of that name.
        """
        return self._find(name)[0].shape

    def box(self, name: str) -> Box:
        """Find the smallest box that holds every voxel of one output; of no size when there is none.

        All outputs of a map are found in one pass over it, once: a mask of the whole grid for each of a hundred
        organs would take longer than the model.

        Raises
        ------
        ModelInvalidOutput
            If the model has no output of that name.
        """
        from scipy.ndimage import find_objects  # here: who only asks a model needs none of it

        array, value = self._find(name)
        if id(array) not in self._boxes:
            self._boxes[id(array)] = find_objects(array)
        boxes = self._boxes[id(array)]
        return (boxes[value - 1] if value <= len(boxes) else None) or _NOWHERE

    def within(self, name: str, box: Box) -> NDArray[np.bool_]:
        """Voxels of one output in a box of the grid.

        Raises
        ------
        ModelInvalidOutput
            If the model has no output of that name.
        """
        array, value = self._find(name)
        return np.asarray(array[box] == value, dtype=np.bool_)

    def probability(self, name: str) -> NDArray[np.uint8] | None:
        """How likely each voxel belongs to one output, 0 to 255; None where the model does not say it."""
        return self.probabilities.get(name)

    def _find(self, name: str) -> tuple[NDArray[np.uint8], int]:
        for label_map in self.label_maps:
            for value, output in label_map.names.items():
                if output == name:
                    return label_map.array, value
        for number, detection in enumerate(self.detections, start=1):
            if f"{detection.output}/{number}" == name and self.instances is not None:
                return self.instances, number
        known = ", ".join(sorted(name for label_map in self.label_maps for name in label_map.names.values()))
        raise ModelInvalidOutput(f"The model has no output named {name!r}; it has: {known or 'none'}.")
