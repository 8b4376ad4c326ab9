"""Cases made ready for training: read once, and kept in memory or on disk."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.dataset import CacheDataset, PersistentDataset
from monai.data.dataset import Dataset as PlainDataset
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.transform import MapTransform
from torch.utils.data import Dataset

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NOT_IMAGES = ("affine", "labels", "instances")


class LoadPrepared(MapTransform):
    """Reads ``image`` and ``label`` of a case that was prepared as one ``.npz`` file; needs no nibabel.

    Parameters
    ----------
    keys : sequence of str
    label : str
        The array that ``label`` is.
    """

    def __init__(self, keys: str | Sequence[str], label: str = "labels") -> None:
        super().__init__(keys)
        self.label = label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace file names by images of shape (channels, right, anterior, superior), as MONAI's loader gives them."""
        found = dict(data)
        with np.load(str(data["image"]), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        affine = torch.from_numpy(_RAS_TO_LPS @ arrays["affine"][:, [2, 1, 0, 3]])
        names = {"image": [name for name in arrays if name not in _NOT_IMAGES], "label": [self.label]}
        for key in self.key_iterator(data):
            if not set(names[str(key)]) <= set(arrays):  # nothing was outlined in this case
                arrays[self.label] = np.zeros(arrays[names["image"][0]].shape, dtype=np.uint8)
            stacked = np.stack([arrays[name].astype(np.float32).transpose(2, 1, 0) for name in names[str(key)]])
            meta = {"original_affine": affine.clone(), "spatial_shape": np.array(stacked.shape[1:])}
            found[key] = MetaTensor(torch.from_numpy(stacked), affine=affine, meta=meta)
        return found


class Renumber(MapTransform):
    """Gives the named values of a label map the numbers 1, 2, …; any other value becomes background.

    Parameters
    ----------
    keys : str
    values : sequence of int
        In the order of their new numbers.
    """

    def __init__(self, keys: str, values: Sequence[int]) -> None:
        super().__init__(keys)
        self.values = tuple(values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Renumber each label map."""
        found = dict(data)
        for key in self.key_iterator(data):
            old, new = found[key], torch.zeros_like(found[key])
            for number, value in enumerate(self.values, start=1):
                new[old == value] = number
            found[key] = new
        return found


def make_ready(cases: Sequence[Mapping[str, Any]], steps: Compose, cache: str, folder: Path) -> Dataset[Any]:
    """Make cases ready.

    Parameters
    ----------
    cases : sequence of mapping
        What the transforms read.
    steps : Compose
        Nothing in them is random.
    cache : str
        ``memory``, ``disk`` or ``none``.
    folder : pathlib.Path
        Where ``disk`` keeps them; files are named by a hash of the case and of the transforms.

    Returns
    -------
    Dataset
    """
    if cache == "memory":
        return CacheDataset(cases, steps, progress=False, num_workers=None, copy_cache=True)
    if cache == "disk":
        return PersistentDataset(cases, steps, folder, hash_transform=_name_of, reset_ops_id=False)
    return PlainDataset(cases, steps)


def _name_of(steps: Compose) -> bytes:
    """What the transforms are, for the names of files: repr() of a transform may hold an address."""
    import hashlib
    import re

    plain = " ".join(f"{type(step).__name__} {_attributes(step)}" for step in steps.transforms)
    return hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", plain).encode()).hexdigest().encode()


def _attributes(step: object) -> str:
    inner = {k: v for k, v in vars(step).items() if isinstance(v, str | int | float | tuple | list)}
    nested = {k: _attributes(v) for k, v in vars(step).items() if hasattr(v, "__dict__") and "transform" in k.lower()}
    return repr(sorted(inner.items())) + repr(sorted(nested.items()))
