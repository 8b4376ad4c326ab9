"""Rules, models and destinations: read from their files, checked against each other, then frozen.

Everything that is wrong is reported at once, each problem with its file and key; nothing starts on a bad catalog.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ai
from dicom_node.card import CARD, Card, card_problems, model_card, nearest, read_table
from dicom_node.domain.delivery import Destination, DimseDestination, FolderDestination, StowDestination, TlsClient
from dicom_node.domain.model import ModelCard
from dicom_node.domain.proof import ProofPolicy
from dicom_node.domain.rule import Operator, Rule
from dicom_node.domain.uids import AETitle
from dicom_node.errors import ConfigurationError
from dicom_node.pins import Pin, read_pins
from dicom_node.rule_file import RuleFile, make_rule
from dicom_node.settings import (
    AnyDestination,
    DimseSettings,
    DimseTls,
    FolderSettings,
    Settings,
    StowSettings,
)

BUNDLED = Path(ai.__file__).parent / "bundles"

Fingerprint = tuple[tuple[str, int, int, int], ...]  # of each file: name, i-node, size, time of the last change (ns)


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the node was told to do, in the order of the files' names."""

    rules: tuple[Rule, ...]
    models: Mapping[str, ModelCard]
    destinations: Mapping[str, Destination]
    rule_files: Fingerprint | None = None  # as they were before the rules were read; None: they come from no file


def load_catalog(settings: Settings) -> Catalog:
    """Read every rule, model card and destination, and check them against each other.

    Raises
    ------
    ConfigurationError
        With every problem found; each names its file and key.
    """
    problems: list[str] = []
    destinations = _destinations(settings)
    models, off = _models(settings, problems)
    rule_files = fingerprint(settings)
    rules = _rules(settings, models, destinations, problems, off)
    if problems:
        raise ConfigurationError(problems)
    return Catalog(rules, models, destinations, rule_files)


def fingerprint(settings: Settings) -> Fingerprint:
    """Look at the rule files without reading them: while this stays the same, so do they."""
    found = []
    for file in sorted(settings.rules.glob("*.toml")):
        with suppress(FileNotFoundError):
            is_now = file.stat()
            found.append((file.name, is_now.st_ino, is_now.st_size, is_now.st_mtime_ns))
    return tuple(found)


def reread_rules(settings: Settings, catalog: Catalog) -> tuple[Catalog, list[str]]:
    """Read the rule files again; models and destinations stay as they were read at the start.

    Returns
    -------
    (Catalog, list of str)
        With the rules as they are now; and what is wrong with them, in which case nobody should use it.
    """
    problems: list[str] = []
    rule_files = fingerprint(settings)
    rules = _rules(settings, catalog.models, catalog.destinations, problems, ())
    return replace(catalog, rules=rules, rule_files=rule_files), problems


def rule_problems(settings: Settings) -> list[str]:
    """Say what is wrong with the rule files as they are now; bundles are not read for it."""
    problems: list[str] = []
    pins = read_pins(settings.file.parent)
    names = {_name_on(file): not _is_off(file, pins) for file in _card_files(settings, problems)}
    on = {name for name, is_on in names.items() if is_on}
    _rules(settings, on, settings.destinations, problems, names.keys() - on)
    return problems


def rule_files(settings: Settings) -> dict[str, Path]:
    """Find the file of each rule, by the name of the rule; what cannot be read is left out."""
    files = {}
    for file in sorted(settings.rules.glob("*.toml")):
        found = read_table(file, RuleFile, [])
        if found is not None:
            files[found.name or file.stem[:64]] = file
    return files


def rule_texts(settings: Settings) -> dict[str, str]:
    """Read the rule files as they are now, by the name of the rule; what cannot be read is left out."""
    return {name: file.read_text(encoding="utf-8") for name, file in rule_files(settings).items()}


def _destinations(settings: Settings) -> dict[str, Destination]:
    return {name: destination(name, section, settings) for name, section in settings.destinations.items()}


def destination(name: str, section: AnyDestination, settings: Settings) -> Destination:
    """Make a destination of its section in the settings."""
    shared: dict[str, Any] = {
        "name": name,
        "timeout_s": section.timeout_s,
        "objects": frozenset(section.objects),
        "seg": section.seg,
        "reject_superseded": section.reject_superseded,
        "proof": ProofPolicy(section.verify, section.verify_after_s, section.verify_timeout_s, section.verify_resends),
    }
    match section:
        case DimseSettings():
            calling = AETitle(section.calling_ae or settings.node.ae_title)
            ae_title = AETitle(section.ae_title)
            return DimseDestination(
                **shared,
                host=section.host,
                port=section.port,
                ae_title=ae_title,
                calling_ae=calling,
                tls=tls_client(section.tls) if section.tls else None,
                user=section.user,
                passcode=section.passcode.get_secret_value(),
            )
        case StowSettings():
            return StowDestination(
                **shared,
                url=section.url,
                username=section.username,
                password=section.password.get_secret_value(),
                token=section.token.get_secret_value(),
                token_file=section.token_file,
                ca=section.ca,
                certificate=section.certificate,
                key=section.key,
            )
        case FolderSettings():
            return FolderDestination(**shared, path=section.path)


def tls_client(section: DimseTls) -> TlsClient:
    """How we speak TLS, as a section of the settings says."""
    return TlsClient(
        ca=section.ca,
        certificate=section.certificate,
        key=section.key,
        server_name=section.server_name,
        minimum=section.minimum,
        accepts_any=section.accept_any_certificate,
    )


def find_bundles(settings: Settings) -> list[Path]:
    """Folders of the models that come with the node, then of those that the settings name."""
    return list(dict.fromkeys(card.parent for card in _card_files(settings, [])))


def check_card(bundle: Path) -> list[str]:
    """Say what is wrong with the card of one bundle, each problem with its file and key."""
    problems: list[str] = []
    card = read_table(bundle / CARD, Card, problems)
    if card is not None:
        problems += [f"{bundle / CARD}: {problem}" for problem in card_problems(card, bundle)]
    return problems


def read_card(bundle: Path) -> Card:
    """Read the card of one bundle.

    Raises
    ------
    ConfigurationError
        If it cannot be read.
    """
    problems: list[str] = []
    card = read_table(bundle / CARD, Card, problems)
    if card is None:
        raise ConfigurationError(problems)
    return card


def usable_card(bundle: Path) -> ModelCard | None:
    """Make the card of one bundle; None when there is none, or something is wrong with it."""
    problems: list[str] = []
    card = read_table(bundle / CARD, Card, problems)
    return None if card is None or card_problems(card, bundle) else model_card(card, bundle)


def rule_models(settings: Settings) -> dict[str, str]:
    """Tell which model each rule that is switched on names."""
    named = {}
    for file in sorted(settings.rules.glob("*.toml")):
        found = read_table(file, RuleFile, [])
        if found is not None and found.enabled:
            named[found.name or file.stem[:64]] = found.model
    return named


def rule_sop_classes(settings: Settings) -> frozenset[str]:
    """Give the SOP classes that rules name which are switched on; whoever names one wants it to be sent."""
    named: set[str] = set()
    for file in sorted(settings.rules.glob("*.toml")):
        found = read_table(file, RuleFile, [])
        if found is not None and found.enabled:
            conditions = make_rule(found, file, []).all_conditions
            wanted = (c for c in conditions if c.key == "SOPClassUID" and c.operator is Operator.ONE_OF)
            named |= {str(uid) for condition in wanted for uid in condition.operands}
    return frozenset(named)


def _card_files(settings: Settings, problems: list[str]) -> list[Path]:
    files = sorted(BUNDLED.glob(f"*/{CARD}"))
    for folder in settings.models:
        found = [folder / CARD] if (folder / CARD).is_file() else sorted(folder.glob(f"*/{CARD}"))
        if not found and not folder.is_dir():
            problems.append(f"{settings.file}: models: {folder} is not there; make it, or add a model to it")
        files += found
    return list(dict.fromkeys(files))


def _models(settings: Settings, problems: list[str]) -> tuple[dict[str, ModelCard], set[str]]:
    """Cards by name, and the names of the models that are switched off."""
    cards: dict[str, ModelCard] = {}
    off: set[str] = set()
    pins = read_pins(settings.file.parent)
    for file in _card_files(settings, problems):
        if _is_off(file, pins):
            off.add(_name_on(file))
            continue
        card = read_table(file, Card, problems)
        if card is None:
            continue
        if card.name in cards:
            problems.append(f"{file}: name: {cards[card.name].bundle / CARD} has a model {card.name!r} already")
            continue
        problems += [f"{file}: {problem}" for problem in card_problems(card, file.parent)]
        made = cards[card.name] = model_card(card, file.parent)
        problems += _unreviewed(made, pins)
    return cards, off


def _is_off(file: Path, pins: Mapping[str, Pin]) -> bool:
    return not pins.get(_name_on(file), Pin()).enabled


def _name_on(file: Path) -> str:
    """The model's name on a card that may be wrong otherwise."""
    try:
        return str(tomllib.loads(file.read_text(encoding="utf-8")).get("name", file.parent.name))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return file.parent.name


def _unreviewed(card: ModelCard, pins: Mapping[str, Pin]) -> Iterable[str]:
    pinned = pins.get(card.name, Pin()).digest
    if pinned and pinned != card.digest:
        yield (
            f"{card.bundle}: changed since it was reviewed: pinned to {pinned[:12]}, is {card.digest[:12]}; review it, "
            f"then `dicom-node models pin {card.name}`"
        )


def _rules(
    settings: Settings,
    models: Iterable[str],
    destinations: Iterable[str],
    problems: list[str],
    off: Collection[str],
) -> tuple[Rule, ...]:
    if not settings.rules.is_dir():
        problems.append(f"{settings.file}: rules: {settings.rules} is not a folder; rule files (*.toml) belong there")
        return ()
    rules: dict[str, Rule] = {}
    for file in sorted(settings.rules.glob("*.toml")):
        found = read_table(file, RuleFile, problems)
        if found is None:
            continue
        rule = make_rule(found, file, problems)
        if rule.name in rules:
            problems.append(f"{file}: name: another rule file has the name {rule.name!r} already")
        rules[rule.name] = rule
        if rule.enabled:
            if rule.model in off:
                problems.append(f"{file}: model: {rule.model} is switched off; `dicom-node models enable {rule.model}`")
            else:
                problems += _unknown(file, "model", "model", [rule.model], models)
                problems += _other_roles(file, rule, models)
            problems += _unknown(file, "destinations", "destination", rule.destinations, destinations)
    return tuple(rules.values())


def _other_roles(file: Path, rule: Rule, models: Iterable[str]) -> Iterator[str]:
    """Say which series a rule has to name for a model that registers: the fixed one first, for results lie on it."""
    card = models.get(rule.model) if isinstance(models, Mapping) else None
    if card is None or card.registration is None:
        return
    if tuple(role.name for role in rule.inputs) != card.registration.roles:
        fixed, moving = card.registration.roles
        yield f"{file}: inputs: {rule.model} registers two series; it needs [inputs.{fixed}], then [inputs.{moving}]"


def _unknown(file: Path, key: str, what: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    there = set(known)
    has = f"; there is {', '.join(sorted(there))}" if there else "; there is none"
    return [f"{file}: {key}: there is no {what} {n!r}{nearest(n, there) or has}" for n in names if n not in there]
