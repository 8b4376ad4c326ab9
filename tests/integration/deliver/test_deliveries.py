"""What the rows of a delivery go through, on both databases: order, tokens, retries, resending."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, update

from dicom_node.db import tables as t
from dicom_node.db.deliveries import (
    MOST_LOST,
    claim_delivery,
    finish_delivered,
    finish_failed,
    finish_retry,
    resend,
    waiting_elsewhere,
)
from dicom_node.db.engine import open_engine, utc_now
from dicom_node.domain.delivery import Delivery, Sent
from dicom_node.domain.model import OutputKind
from dicom_node.errors import ConflictError, DeliveryError, NotFoundError
from tests.integration.deliver.rows import Queue, add_results, attempts, deliveries, events

BUSY = DeliveryError("pacs answered 0xA700", retry=True, status=0xA700)
REFUSED = DeliveryError("pacs answered 0xC000", retry=False, status=0xC000)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    t.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def queue() -> Queue:
    return Queue()


def add(engine: Engine, spool: Path, queue: Queue, *destinations: str) -> str:
    with engine.begin() as tx:
        return add_results(tx, spool, queue, destinations=destinations or ("pacs",))


def claim(engine: Engine, queue: Queue, delivery_id: str, executor: str = "here", *, again: bool = False) -> Delivery:
    with engine.begin() as tx:
        delivery = claim_delivery(tx, delivery_id, executor, queue, again=again)
    assert delivery is not None
    return delivery


def claimable(engine: Engine, queue: Queue, delivery_id: str) -> bool:
    """Whether a claim would be given; takes it back."""
    with engine.connect() as tx:
        return claim_delivery(tx, delivery_id, "probe", queue) is not None


def start_node(engine: Engine, executor: str, state: str = "alive") -> None:
    with engine.begin() as tx:
        who = {"executor_id": executor, "host": "h", "slot": "0", "role": "deliver", "pid": 1, "version": "1"}
        when = {"started_at": utc_now(), "beat_at": utc_now()}
        tx.execute(insert(t.node).values(state=state, **who, **when))


def test_seg_goes_before_sr_and_destinations_do_not_wait_for_each_other(
    engine: Engine, tmp_path: Path, queue: Queue
) -> None:
    job = add(engine, tmp_path, queue, "pacs", "archive")
    seg, sr = deliveries(engine, job)
    assert (seg.kind, sr.kind) == ("seg", "sr")
    archive_seg = deliveries(engine, job, "archive")[0]
    assert queue.take() == [(seg.id, 1), (archive_seg.id, 1)]
    assert not claimable(engine, queue, sr.id)

    delivery = claim(engine, queue, seg.id)
    assert (delivery.kind, delivery.attempt, delivery.tries) == (OutputKind.SEG, 1, 1)
    with engine.begin() as tx:
        assert finish_delivered(tx, delivery, Sent(0), queue)

    assert queue.take() == [(sr.id, 1)]
    assert claim(engine, queue, sr.id).kind is OutputKind.SR
    assert [row.state for row in deliveries(engine, job)] == ["delivered", "sending"]
    assert events(engine, seg.id) == ["delivery started", "delivered"]


def test_sr_goes_although_the_seg_failed_for_good(engine: Engine, tmp_path: Path, queue: Queue) -> None:
    seg, sr = deliveries(engine, add(engine, tmp_path, queue))
    delivery = claim(engine, queue, seg.id)
    queue.take()
    with engine.begin() as tx:
        assert finish_failed(tx, delivery, REFUSED, queue)
    assert queue.take() == [(sr.id, 1)]
    assert attempts(engine, seg.id) == [(1, "failed", 0xC000)]
    assert events(engine, seg.id) == ["delivery started", "delivery failed"]


def test_retry_waits_for_its_time_and_every_attempt_is_a_row(engine: Engine, tmp_path: Path, queue: Queue) -> None:
    job = add(engine, tmp_path, queue)
    seg, _ = deliveries(engine, job)
    delivery = claim(engine, queue, seg.id)
    queue.take()
    with engine.begin() as tx:
        assert finish_retry(tx, delivery, BUSY, 60.0, queue)
    assert queue.runs == [(seg.id, "pacs", 2, 60.0)]  # and not the SR
    assert not claimable(engine, queue, seg.id)
    waiting = deliveries(engine, job)[0]
    assert (waiting.state, waiting.last_status, waiting.last_error) == ("waiting", 0xA700, str(BUSY))

    with engine.begin() as tx:
        due = utc_now() - timedelta(seconds=1)
        tx.execute(update(t.delivery).where(t.delivery.c.id == seg.id).values(next_attempt_at=due))
    assert claim(engine, queue, seg.id).tries == 2
    assert attempts(engine, seg.id) == [(1, "retry", 0xA700), (2, None, None)]


def test_delivery_is_claimed_from_a_dead_sender_but_not_from_a_living_one(
    engine: Engine, tmp_path: Path, queue: Queue
) -> None:
    seg, _ = deliveries(engine, add(engine, tmp_path, queue))
    start_node(engine, "first")
    stale = claim(engine, queue, seg.id, "first")
    assert not claimable(engine, queue, seg.id)
    with engine.begin() as tx:
        tx.execute(update(t.node).values(state="dead"))

    fresh = claim(engine, queue, seg.id, "second")
    with engine.begin() as tx:
        assert not finish_failed(tx, stale, REFUSED, queue)  # a zombie writes nothing
    with engine.begin() as tx:
        assert finish_delivered(tx, fresh, Sent(0xB000), queue)

    assert attempts(engine, seg.id) == [(1, "lost", None), (2, "delivered", 0xB000)]
    assert events(engine, seg.id) == ["delivery started", "delivery started", "delivered"]


def test_claim_whose_commit_was_not_confirmed_can_be_repeated(engine: Engine, tmp_path: Path, queue: Queue) -> None:
    seg, _ = deliveries(engine, add(engine, tmp_path, queue))
    start_node(engine, "here")
    claim(engine, queue, seg.id)
    assert claim(engine, queue, seg.id, again=True).attempt == 2


def test_object_that_kills_its_sender_each_time_is_given_up(engine: Engine, tmp_path: Path, queue: Queue) -> None:
    seg, sr = deliveries(engine, job := add(engine, tmp_path, queue))
    for _ in range(MOST_LOST):
        claim(engine, queue, seg.id, "gone")
    queue.take()
    with engine.begin() as tx:
        assert claim_delivery(tx, seg.id, "gone", queue) is None
    assert deliveries(engine, job)[0].state == "failed"
    assert queue.take() == [(sr.id, 1)]


def test_delivery_canceled_while_it_is_sent_stays_canceled_and_the_answer_is_kept(
    engine: Engine, tmp_path: Path, queue: Queue
) -> None:
    seg, _ = deliveries(engine, job := add(engine, tmp_path, queue))
    delivery = claim(engine, queue, seg.id)
    with engine.begin() as tx:
        tx.execute(update(t.delivery).where(t.delivery.c.id == seg.id).values(state="canceled"))
    with engine.begin() as tx:
        assert not finish_delivered(tx, delivery, Sent(0), queue)
    assert deliveries(engine, job)[0].state == "canceled"
    assert attempts(engine, seg.id) == [(1, "delivered", 0)]
    assert not claimable(engine, queue, seg.id)


def test_resend_of_what_was_delivered_goes_again_in_order(engine: Engine, tmp_path: Path, queue: Queue) -> None:
    seg, sr = deliveries(engine, job := add(engine, tmp_path, queue))
    for one in (seg, sr):
        delivery = claim(engine, queue, one.id)
        with engine.begin() as tx:
            finish_delivered(tx, delivery, Sent(0), queue)
    queue.take()

    with engine.begin() as tx:
        assert resend(tx, [sr.id, seg.id], queue, actor="anna") == (seg.id, sr.id)
    assert queue.take() == [(seg.id, 2)]
    delivery = claim(engine, queue, seg.id)
    assert delivery.tries == 1  # the backoff begins anew
    with engine.begin() as tx:
        finish_delivered(tx, delivery, Sent(0), queue)
    assert queue.take() == [(sr.id, 2)]
    assert [row.state for row in deliveries(engine, job)] == ["delivered", "waiting"]


def test_resend_of_what_waits_goes_now_and_the_run_enqueued_before_finds_nothing_to_do(
    engine: Engine, tmp_path: Path, queue: Queue
) -> None:
    seg, _ = deliveries(engine, add(engine, tmp_path, queue))
    delivery = claim(engine, queue, seg.id)
    with engine.begin() as tx:
        finish_retry(tx, delivery, BUSY, 3600.0, queue)
    queue.take()
    with engine.begin() as tx:
        resend(tx, [seg.id], queue)
    assert queue.take() == [(seg.id, 3)]  # the engine knows a run for attempt 2 already, due in an hour
    delivery = claim(engine, queue, seg.id)
    with engine.begin() as tx:
        finish_retry(tx, delivery, BUSY, 3600.0, queue)
    assert not claimable(engine, queue, seg.id)  # when that old run comes up
    assert [outcome for _, outcome, _ in attempts(engine, seg.id)] == ["retry", "skipped", "retry"]


def test_resend_refuses_what_is_being_sent_and_what_does_not_exist(
    engine: Engine, tmp_path: Path, queue: Queue
) -> None:
    seg, sr = deliveries(engine, add(engine, tmp_path, queue))
    claim(engine, queue, seg.id)
    with engine.begin() as tx, pytest.raises(ConflictError, match="being sent"):
        resend(tx, [seg.id], queue)
    queue.take()
    with engine.begin() as tx:
        assert resend(tx, [seg.id, sr.id], queue) == (sr.id,)
    assert queue.take() == []  # the SR goes when the SEG has gone
    with engine.begin() as tx, pytest.raises(NotFoundError):
        resend(tx, ["00000000-0000-0000-0000-000000000000"], queue)


def test_deliveries_to_a_destination_that_the_settings_no_longer_name_are_counted(
    engine: Engine, tmp_path: Path, queue: Queue
) -> None:
    add(engine, tmp_path, queue, "pacs", "old")
    with engine.begin() as tx:
        assert waiting_elsewhere(tx, ["pacs"]) == {"old": 2}
