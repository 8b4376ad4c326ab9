"""kill -9 of the processes that take things in, again and again, while senders send all the time.

Receivers and the assembler alone, without the supervisor and the processes that load models: a kill then costs
seconds, and hundreds of them can be had. The whole road is in road.py.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Engine, func, select

from dicom_node.app import upgrade_database
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine
from dicom_node.settings import load_settings
from tests.chaos.ledger import Ledger, count_stored
from tests.chaos.senders import IN_SERIES, DcmtkSender, PlainSender, Sender
from tests.node import RunningNode, wait_for

ROLES = ("receive/0", "receive/1", "receive/2", "assemble/0")
UP = {"receive": b"listening on", "assemble": b"assemble runs"}
PLAIN_SENDERS = 3


@dataclass
class Role:
    """One process of the node, started again and again; its log tells when it is up."""

    name: str
    node: RunningNode
    process: subprocess.Popen[bytes] | None = None
    seen: int = 0

    @property
    def log(self) -> Path:
        """What it says."""
        return self.node.home / f"{self.name.replace('/', '-')}.log"

    def start(self) -> None:
        """Start it, without waiting."""
        role, slot = self.name.split("/")
        self.seen = self.log.stat().st_size if self.log.exists() else 0
        log: IO[bytes]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.node.command(role, "--slot", slot), stdout=log, stderr=log)

    def is_up(self) -> bool:
        """Whether it does its work."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended by itself: {self.log.read_text()[-3000:]}"
        return UP[self.name.partition("/")[0]] in self.log.read_bytes()[self.seen :]

    def end(self, how: signal.Signals) -> None:
        """End it and wait for it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(180)


def run_intake(
    home: Path, database_url: str, points: int, seed: int, say: Callable[[str], object] = lambda line: None
) -> Ledger:
    """Kill at `points` random moments; what became of everything that was acknowledged."""
    node = RunningNode(home, 104, "NOBODY", database_url=database_url, quiet_s=0.5)
    settings = load_settings(node.settings)
    upgrade_database(settings)
    engine = open_engine(settings.database.url, pool_size=1)
    roles = [Role(name, node) for name in ROLES]
    chance, stop, ledger = random.Random(seed), threading.Event(), Ledger()
    senders: list[Sender] = [
        PlainSender(node.port, random.Random(f"{seed} {number}"), stop) for number in range(PLAIN_SENDERS)
    ]
    senders.append(DcmtkSender(node.port, random.Random(f"{seed} dcmtk"), stop, home / "dcmtk"))
    try:
        for role in roles:
            role.start()
        wait_for(lambda: all(role.is_up() for role in roles), 180)
        for sender in senders:
            sender.start()
        for point in range(points):
            _kill(roles, chance, ledger)
            if (point + 1) % 20 == 0:
                say(f"{point + 1} kills; {sum(len(sender.acknowledged) for sender in senders)} instances acknowledged")
        stop.set()
        for sender in senders:
            sender.join(150)
        _wait_until_closed(engine)
    finally:
        stop.set()
        for role in roles:
            role.end(signal.SIGTERM)
    _account(ledger, engine, node, senders)
    engine.dispose()
    return ledger


def _kill(roles: list[Role], chance: random.Random, ledger: Ledger) -> None:
    """Kill one process, or all receivers at once, in the middle of what it does."""
    receivers = [role for role in roles if role.name.startswith("receive")]
    kind = chance.choices(["one", "all", "assembler"], [8, 1, 1])[0]
    chosen = {"one": [chance.choice(receivers)], "all": receivers, "assembler": [roles[-1]]}[kind]
    wait_for(lambda: all(role.is_up() for role in chosen), 180, every_s=0.02)
    time.sleep(chance.uniform(0.0, 0.4))
    for role in chosen:
        assert role.process is not None
        os.kill(role.process.pid, signal.SIGKILL)
    for role in chosen:
        assert role.process is not None
        role.process.wait()
        role.start()
    ledger.kills["all receivers" if kind == "all" else chosen[0].name.partition("/")[0]] += 1


def _wait_until_closed(engine: Engine) -> None:
    still_open = select(func.count()).where(t.series.c.state == "receiving")

    def closed() -> bool:
        with engine.begin() as tx:
            return tx.scalar(still_open) == 0

    wait_for(closed, 60, lambda: "series stay open", every_s=0.2)


def _account(ledger: Ledger, engine: Engine, node: RunningNode, senders: list[Sender]) -> None:
    for sender in senders:
        ledger.sent += sender.sent
        ledger.broken += sender.broken
        ledger.problems += [sender.problem] if sender.problem else []
    acknowledged = {uid: tail for sender in senders for uid, tail in sender.acknowledged.items()}
    count_stored(ledger, engine, node.home / "spool", acknowledged)
    with engine.begin() as tx:
        counts = {row.series_instance_uid: row.instance_count for row in tx.execute(select(t.series))}
    for series in (one for sender in senders for one in sender.series):
        if counts.get(series) == IN_SERIES:
            ledger.processed += 1
        else:
            ledger.problems.append(f"{series} was closed with {counts.get(series)} of {IN_SERIES} instances")
