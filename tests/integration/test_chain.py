"""The hash chain over the audit trail: complete whoever writes when, broken by whatever is done to it afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dicom_node.db import chain, migrate
from dicom_node.db.audit import record
from dicom_node.db.engine import open_engine, transaction
from dicom_node.domain.audit import AuditEvent, Event

WRITERS, EACH = 4, 60


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrate.upgrade(database_url)
    engine = open_engine(database_url, pool_size=WRITERS + 3)
    yield engine
    engine.dispose()


def event(number: int) -> AuditEvent:
    detail = {
        "number": number,
        "ratio": 0.1 + number,
        "text": "Ä \u2028 \U0001f9e0",
        "none": None,
        "more": {"b": [1], "a": 2},
    }
    return AuditEvent(Event.JOB_FAILED, job_id=f"{number:036d}", detail=detail)


def write(engine: Engine, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        with transaction(engine) as tx:
            record(tx, event(number))


def extend(engine: Engine) -> int:
    with transaction(engine) as tx:
        return chain.extend(tx)


def run(engine: Engine, statement: str) -> None:
    with transaction(engine) as tx:
        tx.execute(text(statement))


def test_many_write_and_two_chain_and_every_event_has_one_place(engine: Engine) -> None:
    writers = [threading.Thread(target=write, args=(engine, EACH, 1000 * n)) for n in range(WRITERS)]
    ended = threading.Event()

    def chain_on() -> None:
        while not ended.is_set():
            extend(engine)

    chainers = [threading.Thread(target=chain_on) for _ in range(2)]
    for thread in (*writers, *chainers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in chainers:
        thread.join()
    while extend(engine):
        pass

    found = chain.verify(engine)

    assert (found.broken, found.head.no, found.unchained) == (None, WRITERS * EACH, 0)


def test_an_event_that_is_committed_late_gets_a_place_too(postgresql_url: str) -> None:
    migrate.upgrade(postgresql_url)
    engine = open_engine(postgresql_url)
    with transaction(engine) as late:
        record(late, event(1))  # has the lower id, and is seen by nobody yet
        write(engine, 2, first=2)
        assert extend(engine) == 2
    assert extend(engine) == 1
    assert chain.verify(engine).broken is None
    engine.dispose()


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ("UPDATE audit_event SET actor = 'nobody' WHERE chain_no = 7", "link 7, event 7 (job failed"),
        ("UPDATE audit_event SET detail = '{}' WHERE chain_no = 7", "link 7, event 7"),
        ("UPDATE audit_event SET chain_hash = '0' WHERE chain_no = 7", "link 7, event 7"),
        ("DELETE FROM audit_event WHERE chain_no = 7", "link 8, event 8"),
        ("DELETE FROM audit_event WHERE chain_no <= 3", "link 4, event 4"),
        ("UPDATE audit_event SET chain_no = chain_no + 100 WHERE chain_no >= 9", "link 109, event 9"),
        ("DELETE FROM audit_event WHERE chain_no > 8", "the chain ends at 8, and 12 is expected"),
        (
            "UPDATE audit_event SET chain_no = NULL, actor = 'nobody' WHERE chain_no >= 11",
            "is not the one expected",
        ),
    ],
)
def test_the_first_broken_place_is_named(engine: Engine, done: str, told: str) -> None:
    write(engine, 12)
    extend(engine)
    before = chain.verify(engine)
    assert before.broken is None
    run(engine, done)
    extend(engine)  # what has no place any more gets one anew, as whoever redoes the chain would do

    found = chain.verify(engine, expected=before.head)

    assert found.broken is not None
    assert told in found.broken


def test_what_is_not_chained_yet_is_told(engine: Engine, tmp_path: Path) -> None:
    write(engine, 3)
    extend(engine)
    write(engine, 2, first=3)
    found = chain.verify(engine)
    assert (found.broken, found.head.no, found.unchained) == (None, 3, 2)
    assert found.oldest_unchained is not None
