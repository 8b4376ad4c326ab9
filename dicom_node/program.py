"""The ``[command]`` table of a card: a model that is a program outside of the node, called by a command line.

Nothing in it goes through a shell: each word of ``argv`` is one argument, whatever it holds.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dicom_node.domain.model import CommandCard

_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_ALWAYS = {"device", "model", "python", "home"}
_WHEN_RUN = {"input", "output"}
AS_DICOM = ("CT", "MR", "PT")  # modalities of which the node writes a folder of DICOM (ai/dicom_folder.py)

_Word = Annotated[str, Field(min_length=1)]
_Number = Annotated[int, Field(ge=1, le=255)]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_FileName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$")]


class Command(BaseModel):
    """The table as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: Annotated[tuple[_Word, ...], Field(min_length=1)]
    input: Literal["nifti", "dicom"] = "nifti"
    labels: dict[_Number, _Word] = Field(default_factory=dict)
    structures: tuple[_FileName, ...] = ()
    version: tuple[_Word, ...] = ()
    devices: dict[_Word, _Word] = Field(default_factory=dict)
    environment: dict[_Variable, str] = Field(default_factory=dict)
    reads: tuple[_Word, ...] = ()
    parallel: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of what it marks."""
        return tuple(self.labels.values()) or self.structures


def command_problems(command: Command, modality: tuple[str, ...]) -> Iterator[str]:
    """Say what does not fit together in the table, each problem with its key.

    Parameters
    ----------
    modality : tuple of str
        What the model accepts.
    """
    used = set(_PLACEHOLDER.findall(" ".join(command.argv)))
    yield from (f"argv: does not say where {{{name}}} goes" for name in sorted(_WHEN_RUN - used))
    words = {"argv": (command.argv, _ALWAYS | _WHEN_RUN), "version": (command.version, _ALWAYS)}
    words["environment"] = (tuple(command.environment.values()), _ALWAYS)
    for key, (texts, known) in words.items():
        for name in sorted(set(_PLACEHOLDER.findall(" ".join(texts))) - known):
            yield f"{key}: nothing is known as {{{name}}}; there is {', '.join(sorted(known))}"
    if bool(command.labels) == bool(command.structures):
        yield "labels: give either labels (one file with a number for each) or structures (a file for each)"
    names = command.names
    yield from (f"labels: {name!r} is used twice" for n, name in enumerate(names) if name in names[:n])
    yield from (f"reads: {folder!r} is no absolute path" for folder in command.reads if not Path(folder).is_absolute())
    if command.input == "dicom" and (other := [one for one in modality if one not in AS_DICOM]):
        yield f"input: the node writes DICOM of {', '.join(AS_DICOM)} alone, not of {other[0]}; take nifti"


def is_program(folder: Path, card: str) -> bool:
    """Whether a folder holds a model that is a program: its card has the table."""
    try:
        return isinstance(tomllib.loads((folder / card).read_text(encoding="utf-8")).get("command"), dict)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def program_file(argv: tuple[str, ...]) -> Path | None:
    """Find the file outside of the model's folder that is run first; None where there is none."""
    if not argv or "{" in argv[0]:
        return None
    found = shutil.which(argv[0])
    return Path(found) if found else None


def is_there(argv: tuple[str, ...], folder: Path) -> bool:
    """Whether the program can be found on this machine."""
    word = argv[0].replace("{model}", str(folder))
    return "{" in word or shutil.which(word) is not None


def command_card(command: Command, version: str) -> CommandCard:
    """Make the card that the node works with; the program has to say that it is `version`, where it is asked."""
    return CommandCard(
        argv=command.argv,
        input=command.input,
        says=version,
        labels=dict(command.labels),
        structures=command.structures,
        version=command.version,
        devices=dict(command.devices),
        environment=dict(command.environment),
        reads=command.reads,
        parallel=command.parallel,
    )
