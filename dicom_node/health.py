"""Whether the node is well: a few checks with a sentence each, for load balancers, container platforms and people.

``down`` is what keeps it from doing its work; ``degraded`` is what somebody should look at soon.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.catalog import rule_problems
from dicom_node.db import migrate
from dicom_node.db.engine import reading
from dicom_node.db.numbers import Numbers, read_numbers
from dicom_node.settings import Settings
from dicom_node.spool import Spool

LATE = timedelta(hours=1)  # what a queue or a destination may be behind before somebody should look
UNCHAINED = timedelta(minutes=10)
_MIB = 1024 * 1024


class State(StrEnum):
    """How something is; the worst of all is how the node is."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `text` holds nothing of a patient."""

    name: str
    state: State
    text: str


@dataclass(frozen=True, slots=True)
class Health:
    """Everything that was looked at."""

    checks: tuple[Check, ...]

    @property
    def state(self) -> State:
        """The worst of the checks."""
        return max((check.state for check in self.checks), key=list(State).index, default=State.OK)


def ready(settings: Settings, engine: Engine, spool: Spool) -> Health:
    """Whether the node can take instances now: its disk, its database, its listener."""
    return Health((_disk(settings, spool), _database(engine)[0], _listener(settings)))


def health(settings: Settings, engine: Engine, spool: Spool) -> Health:
    """Everything, the work that is behind included."""
    database, numbers = _database(engine)
    checks = [_disk(settings, spool), database, _listener(settings), *_certificates(settings), _rules(settings)]
    return Health((*checks, *(_work(numbers) if numbers else ())))


def _disk(settings: Settings, spool: Spool) -> Check:
    try:
        free_mib = spool.free_bytes() // _MIB
    except OSError as error:
        return Check("disk", State.DOWN, f"the spool cannot be reached: {error.strerror}")
    if free_mib < settings.spool.reserve_mib:
        below = f"below spool.reserve_mib = {settings.spool.reserve_mib}"
        return Check("disk", State.DOWN, f"{free_mib} MiB free, {below}: instances are refused (0xA700)")
    if free_mib < settings.retain.free_mib:
        below = f"below retain.free_mib = {settings.retain.free_mib}"
        return Check("disk", State.DEGRADED, f"{free_mib} MiB free, {below}: the oldest go before their time")
    return Check("disk", State.OK, f"{free_mib} MiB free")


def _database(engine: Engine) -> tuple[Check, Numbers | None]:
    try:
        if (found := migrate.current(engine)) != migrate.head():
            text = f"its tables are at version {found or 'none'}, this program needs {migrate.head()}"
            return Check("database", State.DOWN, text), None
        with reading(engine) as tx:
            numbers = read_numbers(tx)
    except SQLAlchemyError as error:
        return Check("database", State.DOWN, f"it does not answer ({type(error).__name__})"), None
    return Check("database", State.OK, f"it answers, {numbers.size_bytes // _MIB} MiB"), numbers


def _listener(settings: Settings) -> Check:
    receive = settings.receive
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(receive.address, receive.address)
    for port in receive.ports:
        try:
            socket.create_connection((address, port), timeout=1.0).close()
        except OSError as error:
            text = f"nothing takes connections on port {port} ({error.strerror or 'no answer'})"
            return Check("receiver", State.DOWN, text)
    ports = " and ".join(map(str, receive.ports))
    return Check("receiver", State.OK, f"port {ports} takes connections")


def _certificates(settings: Settings) -> Iterator[Check]:
    if settings.receive.tls is None:
        return
    from dicom_node.tls.cautions import certificate_trouble  # it loads a library that only TLS needs

    trouble = certificate_trouble(settings)
    yield Check("TLS", State.DEGRADED if trouble else State.OK, trouble or "the certificates can be used")


def _rules(settings: Settings) -> Check:
    problems = rule_problems(settings)
    if problems:
        return Check(
            "rules", State.DEGRADED, f"{problems[0]}; the node goes on with the rules of before, until it is restarted"
        )
    return Check("rules", State.OK, "as their files say")


def _work(numbers: Numbers) -> Iterator[Check]:
    for role, what in (("work", "worker"), ("deliver", "deliverer")):
        alive = numbers.processes.get(role, 0)
        text = f"{alive} alive" if alive else f"no {what} is alive; do `dicom-node {role}`"
        yield Check(f"{what}s", State.OK if alive else State.DOWN, text)
    open_jobs = sum(numbers.jobs.values())
    yield _age("queue", f"{open_jobs} jobs open", "the oldest waits since", numbers.oldest_due, numbers.now)
    for destination, asked_at in sorted(numbers.oldest_waiting.items()):
        count = sum(n for (_, name), n in numbers.deliveries.items() if name == destination)
        text = f"{count} objects not delivered"
        yield _age(f"destination {destination}", text, "the oldest waits since", asked_at, numbers.now)
    failed = sum(n for (state, _), n in numbers.deliveries.items() if state == "failed")
    if failed:
        yield Check("deliveries", State.DEGRADED, f"{failed} failed for good; resend or cancel them")
    text = f"{numbers.unchained} events have no place in the chain yet"
    yield _age("audit trail", text, "the oldest since", numbers.oldest_unchained, numbers.now, UNCHAINED)


def _age(name: str, text: str, words: str, since: datetime | None, now: datetime, late: timedelta = LATE) -> Check:
    if since is None:
        return Check(name, State.OK, text)
    state = State.DEGRADED if now - since > late else State.OK
    return Check(name, state, f"{text}, {words} {since:%Y-%m-%d %H:%M} UTC")
