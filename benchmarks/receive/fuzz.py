"""Send a running node what nobody should send, with fixed seeds, and look at it after every batch.

    python -m benchmarks.receive.fuzz                   20,000 broken streams of PDUs, 20,000 broken data sets
    python -m benchmarks.receive.fuzz --count 1000

After each batch the node has to answer a C-ECHO, and every row has to have a file that is what its digest says. What
was answered with 0x0000 has to be in the spool byte for byte.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from benchmarks.receive.acceptors import Node, lone_node
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, reading
from dicom_node.digest import is_digest_of
from tests.integration.receive.garbage import mutated, renamed, stream
from tests.integration.receive.objects import FILES, sample
from tests.integration.receive.scu import Instance, Rejected, Scu

BATCH = 500
SENDERS = 8
PATIENCE_S = 10.0  # with a node that is told to store more than its disk takes


def main() -> None:
    """Parse, start a node, send, look, print."""
    with lone_node(__doc__, 20_000) as (node, count):
        fuzzed = Fuzzed(node)
        for title, send in (("malformed streams", fuzzed.streams), ("mutated data sets", fuzzed.data_sets)):
            started, said = time.monotonic(), Counter[str]()
            for seed in range(count // BATCH):
                said += send(seed)
                fuzzed.look()
            counted = ", ".join(f"{what} {many}" for what, many in sorted(said.items()))
            print(f"{title}: {count} in {time.monotonic() - started:.0f} s: {counted}", flush=True)
        print(f"{len(fuzzed.looked_at)} instances stored, every file as its digest says; {fuzzed.memory()}")
        print(f"{fuzzed.put_off} times an echo was put off because too many associations were open")


class Fuzzed:
    """A node, and what it is held to."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.looked_at: set[str] = set()
        self.put_off = 0  # echoes
        self._engine = open_engine(f"sqlite:///{node.folder / 'node.db'}")
        self._pids = [process.pid for process in self.node.processes]
        self._rss_mib = self.node.rss_mib()

    def streams(self, seed: int) -> Counter[str]:
        """Send a batch of broken streams; which PDU each got last."""
        rng = random.Random(f"streams {seed}")
        batch = [(stream(rng), rng.random() < 0.3) for _ in range(BATCH)]
        with ThreadPoolExecutor(SENDERS) as pool:
            return Counter(pool.map(self._stream, batch))

    def _stream(self, what: tuple[bytes, bool]) -> str:
        data, by_reset = what
        answers = b""
        with socket.create_connection(("127.0.0.1", self.node.port), 30) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(data)
                peer.settimeout(0.05)  # some wait for more, as they should
                while more := peer.recv(4096):
                    answers += more
            if by_reset:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return _NAMES.get(_last(answers), "no answer")

    def data_sets(self, seed: int) -> Counter[str]:
        """Send a batch of broken data sets; the statuses. Those stored have to be there byte for byte."""
        rng = random.Random(f"data sets {seed}")
        wholes = [sample(name) for name in FILES.values()]
        batch = []
        for number in range(BATCH):
            whole = rng.choice(wholes)
            whole = renamed(whole, seed * BATCH + number) if rng.random() < 0.8 else whole
            batch.append(mutated(whole, rng, rng.choice(("", "", "", "1.9.1"))))
        with ThreadPoolExecutor(SENDERS) as pool:
            answered = [
                one for part in pool.map(self._store, [batch[n::SENDERS] for n in range(SENDERS)]) for one in part
            ]
        kept = {data for _, data in self._stored()}
        for one, status in answered:
            if status == 0x0000 and one.data not in kept:
                raise AssertionError(f"{one.sop_instance_uid} was answered with success and is not there as sent")
        return Counter(f"0x{status:04X}" for _, status in answered)

    def _store(self, batch: Sequence[Instance]) -> list[tuple[Instance, int]]:
        with Scu(self.node.port, timeout_s=60) as scu:
            scu.associate_for(*batch)
            answered = [(one, scu.store(one)) for one in batch]
            scu.release()
        return answered

    def look(self) -> None:
        """See that the node is well: the same processes, an answer to an echo, and rows that tell the truth."""
        for process, pid in zip(self.node.processes, self._pids, strict=True):
            if process.poll() is not None or process.pid != pid:
                raise AssertionError("a receiver has died")
        for _ in range(4):  # whichever of the processes it comes to
            self._echo()
        for digest, data in self._stored(new_only=True):
            if not is_digest_of(digest, data):
                raise AssertionError("a stored file is not what its row says")

    def _echo(self) -> None:
        """Ask for an echo; again while the node still stores for peers that have left, and says that it has no room."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with Scu(self.node.port) as scu:
                    if scu.associate().echo() != 0x0000:
                        raise AssertionError("no success for an echo")
                return
            except Rejected:
                if time.monotonic() > end:
                    raise
                self.put_off += 1
                time.sleep(0.2)

    def memory(self) -> str:
        """What the receivers use, before and now."""
        return f"receivers {self._rss_mib:.0f} -> {self.node.rss_mib():.0f} MiB"

    def _stored(self, *, new_only: bool = False) -> Iterator[tuple[str, bytes]]:
        with reading(self._engine) as tx:
            rows = tx.execute(select(t.instance.c.path, t.instance.c.digest.label("digest"))).all()
        for path, digest in rows:
            if not (new_only and path in self.looked_at):
                file = (self.node.folder / "spool" / path).read_bytes()
                if new_only:
                    self.looked_at.add(path)
                yield digest, file[144 + int.from_bytes(file[140:144], "little") :]


_NAMES = {2: "A-ASSOCIATE-AC", 3: "A-ASSOCIATE-RJ", 4: "P-DATA", 6: "A-RELEASE-RP", 7: "A-ABORT"}


def _last(answers: bytes) -> int:
    """Type of the last PDU that came."""
    kind = position = 0
    while position + 6 <= len(answers):
        kind = answers[position]
        position += 6 + int.from_bytes(answers[position + 2 : position + 6], "big")
    return kind


if __name__ == "__main__":
    main()
