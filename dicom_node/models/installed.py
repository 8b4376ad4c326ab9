"""What an administrator does with models: add, remove, pin, switch on and off. The node reads them when it starts."""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ai.contract import BundleError
from ai.interface import Gives, Input, Output
from ai.understand import Understanding, understand
from dicom_node.card import CARD, Card, model_digest
from dicom_node.catalog import BUNDLED, check_card, find_bundles, read_card, rule_models
from dicom_node.errors import ConfigurationError, ConflictError, NotFoundError
from dicom_node.models.draft import draft_card, draft_segments, still_unknown
from dicom_node.models.unpack import unpack
from dicom_node.pins import Pin, read_pins, write_pins
from dicom_node.program import Command, command_problems, is_program, is_there
from dicom_node.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Installed:
    """One model on this node.

    Attributes
    ----------
    problems : tuple of str
        What keeps it from being loaded; empty when nothing does.
    """

    name: str
    version: str
    bundle: Path
    digest: str
    pinned: bool
    enabled: bool
    problems: tuple[str, ...]

    @property
    def state(self) -> str:
        """In a word or two, as a table shows it."""
        if self.problems:
            return "incomplete" if self.enabled else "off, incomplete"
        return ("on, pinned" if self.pinned else "on") if self.enabled else "off"


@dataclass(frozen=True, slots=True)
class Added:
    """A bundle that was added. `to_fill_in`: keys of its card that a person must decide; it is off until then."""

    model: Installed
    understanding: Understanding
    to_fill_in: tuple[str, ...]


def list_models(settings: Settings) -> list[Installed]:
    """Every model that the settings lead to, whether or not it can be loaded."""
    pins = read_pins(settings.file.parent)
    return [_installed(bundle, pins) for bundle in find_bundles(settings)]


def find_model(settings: Settings, name: str) -> Installed:
    """One of them.

    Raises
    ------
    NotFoundError
        If there is none of that name.
    """
    found = list_models(settings)
    for model in found:
        if model.name == name:
            return model
    raise NotFoundError(f"there is no model {name!r}; there is: {', '.join(model.name for model in found) or 'none'}")


def look_at(bundle: Path) -> Understanding:
    """Understand a model on disk: a bundle, or the card of a program.

    Raises
    ------
    ConfigurationError
        If it is none.
    """
    if is_program(bundle, CARD):
        card = read_card(bundle)
        return _understand_program(card, card.command, bundle) if card.command else understand(bundle)
    try:
        return understand(bundle)
    except BundleError as error:
        raise ConfigurationError(str(error)) from error


def add_model(settings: Settings, source: Path, name: str | None = None, *, replace: bool = False) -> Added:
    """Copy a model into the first folder of ``models``, with a drafted card where it has none, and pin it.

    The card of a program that names no segments gets them drafted, too.

    Parameters
    ----------
    source : pathlib.Path
        A folder or a zip file.
    name : str, optional
        Of the model; the card's, or the bundle's folder's, without it.
    replace : bool
        Whether a model of that name gives way.

    Raises
    ------
    ConfigurationError
        If it is no bundle, or one that this node cannot run; each reason is one of its `problems`.
    ConflictError
        If there is a model of that name.
    """
    target = _first_folder(settings)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=target) as scratch:
        unpacked = Path(scratch) / "new"
        unpacked.mkdir()
        bundle = unpack(source, unpacked)
        known = look_at(bundle)
        _refuse_hopeless(known, source)
        plain = source.name.removesuffix(".zip") if bundle == unpacked else bundle.name
        name = _chosen_name(bundle, name or plain, source, is_given=name is not None)
        card = bundle / CARD
        if not card.exists():
            card.write_text(draft_card(known, name), encoding="utf-8")
        elif known.command and not read_card(bundle).segments:
            drafted = draft_segments(known.outputs[0].names, is_ct=known.inputs[0].modality == "CT")
            card.write_text(f"{card.read_text(encoding='utf-8').rstrip()}\n{drafted}", encoding="utf-8")
        _check_room(settings, target / name, name, replace=replace)
        if (target / name).exists():
            (target / name).rename(Path(scratch) / "old")
        bundle.rename(target / name)
    missing = _still_unknown(target / name)
    pins = read_pins(settings.file.parent)
    pins[name] = Pin(model_digest(target / name), enabled=not missing)
    write_pins(settings.file.parent, pins)
    return Added(_installed(target / name, pins), known, tuple(missing))


def remove_model(settings: Settings, name: str) -> Installed:
    """Delete a model that no rule names.

    Raises
    ------
    ConflictError
        If a rule names it, or it came with the node.
    """
    model = find_model(settings, name)
    if model.bundle.is_relative_to(BUNDLED):
        raise ConflictError(f"{name} came with the node; `dicom-node models disable {name}` switches it off")
    _refuse_in_use(settings, name, "removed")
    shutil.rmtree(model.bundle)
    pins = read_pins(settings.file.parent)
    pins.pop(name, None)
    write_pins(settings.file.parent, pins)
    return model


def pin_model(settings: Settings, name: str) -> Installed:
    """Let a model be loaded only as it is now on disk."""
    return _decide(settings, find_model(settings, name), enabled=None)


def enable_model(settings: Settings, name: str) -> Installed:
    """Switch a model on, as it is now on disk.

    Raises
    ------
    ConfigurationError
        If its card is incomplete or wrong.
    """
    model = find_model(settings, name)
    wrong = [*(f"{model.bundle / CARD}: {key}: is still to be filled in" for key in _still_unknown(model.bundle))]
    wrong += check_card(model.bundle)
    if wrong:
        raise ConfigurationError(wrong)
    return _decide(settings, model, enabled=True)


def disable_model(settings: Settings, name: str) -> Installed:
    """Switch a model off that no rule names.

    Raises
    ------
    ConflictError
        If a rule names it.
    """
    model = find_model(settings, name)
    _refuse_in_use(settings, name, "switched off")
    return _decide(settings, model, enabled=False)


def _installed(bundle: Path, pins: dict[str, Pin]) -> Installed:
    try:
        card = tomllib.loads((bundle / CARD).read_text(encoding="utf-8"))
        name, version = str(card.get("name", bundle.name)), str(card.get("version", ""))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        name, version = bundle.name, ""
    pin, digest = pins.get(name, Pin()), model_digest(bundle)
    problems = [f"{key}: is still to be filled in" for key in _still_unknown(bundle)] + check_card(bundle)
    if pin.digest and pin.digest != digest:
        problems.append(f"changed since it was reviewed: pinned to {pin.digest[:12]}, is {digest[:12]}")
    return Installed(name, version, bundle, digest, bool(pin.digest), pin.enabled, tuple(problems))


def _first_folder(settings: Settings) -> Path:
    folders = [folder for folder in settings.models if not (folder / CARD).is_file()]
    if not folders:
        raise ConfigurationError(
            f'{settings.file}: models: name a folder for models, e.g. models = ["models"], before you add one'
        )
    folders[0].mkdir(parents=True, exist_ok=True)
    return folders[0]


def _refuse_hopeless(known: Understanding, source: Path) -> None:
    problems = [f"{source}: {obstacle}" for obstacle in known.obstacles]
    if not known.weights and not known.command:
        problems.append(f"{source}: has no models/model.pt; the zoo keeps weights apart: download them into the bundle")
    if problems:
        raise ConfigurationError(problems)


def _understand_program(card: Card, command: Command, folder: Path) -> Understanding:
    """Tell what a program takes and gives, from its card: there is nothing else that says it."""
    obstacles = [f"command.{problem}" for problem in command_problems(command, card.accepts.modality)]
    for words in (command.argv, command.version):
        if words and not is_there(words, folder):
            obstacles.append(f"there is no program {words[0]} on this machine")
    return Understanding(
        name=card.name,
        version=card.version,
        task=card.title,
        description=card.summary,
        inputs=(Input("image", ("image",), 3, card.accepts.modality[0]),),
        outputs=(Output("labels", Gives.SEGMENTATION, command.names),),
        configuration="",
        weights="",
        packages={},
        missing=(),
        obstacles=tuple(dict.fromkeys(obstacles)),
        command=" ".join(command.argv),
    )


def _chosen_name(bundle: Path, name: str, source: Path, *, is_given: bool) -> str:
    """The name on its card, where it has one; a name that was given must not say otherwise."""
    own = ""
    if (bundle / CARD).is_file():
        try:
            own = str(tomllib.loads((bundle / CARD).read_text(encoding="utf-8")).get("name", ""))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"{source}: {CARD}: not valid TOML: {error}") from error
    if is_given and own and name != own:
        raise ConfigurationError(f"{source}: its {CARD} calls it {own!r}; change the name there")
    chosen = own or name
    if not _NAME.fullmatch(chosen):
        raise ConfigurationError(f"{chosen!r} is no name for a model: use letters, digits, - _ and . (--name)")
    return chosen


def _check_room(settings: Settings, place: Path, name: str, *, replace: bool) -> None:
    there = [model for model in list_models(settings) if model.name == name]
    if not replace and (there or place.exists()):
        raise ConflictError(f"there is a model {name!r} already; --replace puts the new one in its place")
    if any(model.bundle != place for model in there):
        raise ConflictError(f"{there[0].bundle} has a model {name!r} already; choose another --name")


def _refuse_in_use(settings: Settings, name: str, what: str) -> None:
    rules = [rule for rule, model in rule_models(settings).items() if model == name]
    if rules:
        raise ConflictError(f"{name} cannot be {what}: {', '.join(rules)} names it; switch that rule off first")


def _decide(settings: Settings, model: Installed, *, enabled: bool | None) -> Installed:
    pins = read_pins(settings.file.parent)
    pins[model.name] = Pin(model.digest, model.enabled if enabled is None else enabled)
    write_pins(settings.file.parent, pins)
    return _installed(model.bundle, pins)


def _still_unknown(bundle: Path) -> list[str]:
    try:
        return still_unknown(tomllib.loads((bundle / CARD).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []  # the catalog says it better
