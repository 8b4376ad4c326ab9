"""What a bundle takes and what it gives, in the words of its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_COLOURS = ("r", "g", "b")


class Gives(StrEnum):
    """Kinds of outputs."""

    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    POINTS = "points"
    REGISTRATION = "registration"
    IMAGE = "image"
    UNKNOWN = "not said"


RETURNED = (
    *(Gives.SEGMENTATION, Gives.DETECTION, Gives.CLASSIFICATION, Gives.REGRESSION),
    *(Gives.POINTS, Gives.REGISTRATION, Gives.IMAGE),
)
_TAKE_IMAGES_ALONG = (Gives.SEGMENTATION, Gives.IMAGE)


def otherwise(name: str) -> str:
    """Name the other answer of a model that says of one thing alone how likely it is."""
    return f"no {name}"


def role_of(names: tuple[str, ...], *words: str) -> str:
    """Find which of two images is meant, ``fixed`` or ``moving``, by their names; empty where that does not tell."""
    found = [name for name in names if any(word in name.lower() for word in words)]
    return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class Input:
    """An image that a bundle takes.

    Attributes
    ----------
    channels : tuple of str
        A name for each.
    dimensions : int
        2 or 3: of what the network is shown at once.
    modality : str
        DICOM Modality (0008,0060), or empty where the bundle does not say.
    spacing_mm : tuple of float
        What its own transforms resample to, along the axes of `orientation`; empty where they do not.
    orientation : str
        Axis codes that its own transforms turn to, e.g. ``RAS``; empty where they do not.
    keys : tuple of str
        Under which its transforms expect images: one, or one for each of several that they join.
    roles : tuple of str
        Of the series that it needs: their names, where it needs several on one grid; else empty.
    """

    name: str
    channels: tuple[str, ...]
    dimensions: int
    modality: str
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    keys: tuple[str, ...] = ("image",)
    roles: tuple[str, ...] = ()

    @property
    def has_colour(self) -> bool:
        """Whether it takes red, green and blue: of a grey image, the same three times."""
        said = tuple(channel.strip().lower()[:1] for channel in self.channels)
        return said == _COLOURS or (self.dimensions == 2 and len(self.channels) == len(_COLOURS) and not self.roles)

    def __str__(self) -> str:
        what = f"{self.dimensions}-D {self.modality or 'image'}"
        several = f", {len(self.channels)} channels" if len(self.channels) > 1 else ""
        if self.roles:
            several = f", {len(self.roles)} series ({', '.join(self.roles)})"
        elif self.has_colour:
            several = ", in colour"
        spacing = f", at {' x '.join(f'{mm:g}' for mm in self.spacing_mm)} mm" if self.spacing_mm else ""
        return what + several + spacing


@dataclass(frozen=True, slots=True)
class Output:
    """Something that a bundle gives: of which kind, and the names in it without the background.

    `problem` is what metadata leaves open that has to be known, as a sentence without its full stop; `form` the word
    that metadata has for its values, such as ``hounsfield``.
    """

    name: str
    gives: Gives
    names: tuple[str, ...]
    problem: str = ""
    form: str = ""

    def __str__(self) -> str:
        most = 6
        more = f", … ({len(self.names)} in all)" if len(self.names) > most else ""
        return f"{self.gives.value}: {', '.join(self.names[:most])}{more}" if self.names else self.gives.value

    @property
    def is_returned(self) -> bool:
        """Whether the node has an object for it."""
        return self.gives in RETURNED and bool(self.names)


def main_output(outputs: Sequence[Output], key: str) -> Output:
    """The one that is returned: how an image was moved, where a bundle gives that and the moved image."""
    if (registers := next((output for output in outputs if output.gives is Gives.REGISTRATION), None)) is not None:
        return registers
    return next((output for output in outputs if output.name == key), Output(key, Gives.SEGMENTATION, ()))


def images_among(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """Images that are returned: those beside a segmentation, or beside each other; all else is returned alone."""
    first = next((output.gives for output in outputs if output.is_returned), Gives.UNKNOWN)
    registers = any(output.gives is Gives.REGISTRATION for output in outputs)
    if registers or first not in _TAKE_IMAGES_ALONG:
        return ()
    return tuple(output for output in outputs if output.gives is Gives.IMAGE)
