"""What a model is given and what it gives back: arrays in DICOM patient space, and the reasons it may fail.

Nothing here imports torch or MONAI: the node that asks and the child process that answers share only this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class ModelError(Exception):
    """A model gave no usable answer. The message is a sentence for an administrator, without patient data."""


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
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    modality: str = "CT"

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between voxel centres: (between slices, between rows, between columns), in mm."""
        between = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(between[0]), float(between[1]), float(between[2])


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


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model said about one volume.

    Parameters
    ----------
    label_maps : tuple of LabelMap
        Outputs that may overlap lie in different maps.
    steps_s : mapping of str to float
        Seconds spent in each step, in order: ``load`` (zero when the model was warm), ``preprocess``, ``infer``,
        ``postprocess``.
    device : str
        Where it was computed: ``cpu``, ``cuda:0``.
    """

    label_maps: tuple[LabelMap, ...]
    steps_s: Mapping[str, float]
    device: str

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Voxels of one output.

        Parameters
        ----------
        name : str
            The bundle's name of the output.

        Returns
        -------
        numpy.ndarray of bool, shape (slices, rows, columns)

        Raises
        ------
        ModelInvalidOutput
            If the model has no output of that name.
        """
        for label_map in self.label_maps:
            for value, output in label_map.names.items():
                if output == name:
                    return np.asarray(label_map.array == value, dtype=np.bool_)
        known = ", ".join(sorted(name for label_map in self.label_maps for name in label_map.names.values()))
        raise ModelInvalidOutput(f"The model has no output named {name!r}; it has: {known or 'none'}.")
