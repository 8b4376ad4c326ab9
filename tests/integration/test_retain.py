"""Retention takes what its time is over and nothing else, and can be killed anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import func, select, text, update

from dicom_node.db import retention
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.db.retention import Kind
from dicom_node.domain.delivery import Sent
from dicom_node.domain.job import JobState
from dicom_node.errors import ConflictError, DeliveryError
from dicom_node.operate import cancel, resend
from dicom_node.retain import Retention
from dicom_node.settings import Retain
from tests.ct import small_ct
from tests.integration.operated import Operated, operated

FOR_EVER = dict.fromkeys(
    ("images_days", "unmatched_days", "failed_days", "results_days", "rows_days", "engine_days"), 0
)


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        yield made


def retention_of(node: Operated, **days: Any) -> Retention:
    settings = Retain.model_validate({**FOR_EVER, "free_mib": 0, **days})
    return Retention(settings, node.engine, node.enqueuer, node.spool, "test")


def receive(node: Operated, folder: Path, slices: int = 8) -> str:
    """A series comes; its UID."""
    paths = small_ct(folder, slices=slices)
    node.receive(paths)
    return str(dcmread(paths[0]).SeriesInstanceUID)


def complete(node: Operated, series_uid: str) -> str:
    """Its job makes results, whose files are there; its id."""
    (job,) = node.jobs(series=series_uid)
    node.complete(job["id"])
    for kind in ("seg", "sr"):
        node.spool.write(f"results/{job['id']}", f"{kind}.dcm", b"0" * 1000)
    return str(job["id"])


def age(node: Operated, days: float) -> None:
    """Let so much time pass for all that is there."""
    ago = utc_now() - timedelta(days=days)
    with transaction(node.engine) as tx:
        tx.execute(update(t.series).where(t.series.c.closed_at.is_not(None)).values(closed_at=ago))
        tx.execute(update(t.result).values(created_at=ago))
        tx.execute(update(t.series).where(t.series.c.images_deleted_at.is_not(None)).values(images_deleted_at=ago))


def files(node: Operated) -> int:
    folders = (node.spool.root / "instances", node.spool.root / "results")
    return sum(path.is_file() for folder in folders for path in folder.rglob("*"))


def images_of(node: Operated, series_uid: str) -> int:
    """How many instances of a series have a row; each of them must have its file."""
    mine = select(t.instance.c.path).join(t.series).where(t.series.c.series_instance_uid == series_uid)
    with transaction(node.engine) as tx:
        paths = list(tx.scalars(mine))
    assert all((node.spool.root / path).is_file() for path in paths)
    return len(paths)


def events(node: Operated, event: str) -> list[dict[str, Any]]:
    with transaction(node.engine) as tx:
        found = tx.execute(select(t.audit_event).where(t.audit_event.c.event == event).order_by(t.audit_event.c.id))
        return [dict(row._mapping) for row in found]


def test_each_kind_goes_after_its_own_time_and_never_before_it_is_delivered(node: Operated, tmp_path: Path) -> None:
    delivered = receive(node, tmp_path / "delivered")
    done = complete(node, delivered)
    node.send(Sent(0x0000), Sent(0x0000))
    refused = receive(node, tmp_path / "refused")
    stuck = complete(node, refused)
    node.send(DeliveryError("no", retry=False, status=0xC000), Sent(0x0000))
    failed = receive(node, tmp_path / "failed")
    (job,) = node.jobs(series=failed)
    node.fail(job["id"])
    node.report(job["id"])
    node.send(Sent(0x0000))
    unmatched = receive(node, tmp_path / "few", slices=3)
    scheduled = receive(node, tmp_path / "scheduled")
    every = (delivered, refused, failed, unmatched, scheduled)
    age(node, 10)

    keeper = retention_of(node, images_days=20, unmatched_days=5, failed_days=30, results_days=20)
    assert [(kind.name, amount.count, amount.files) for kind, amount in keeper.plan().images.items()] == [
        ("UNMATCHED", 1, 3),
        ("DELIVERED", 0, 0),
        ("FAILED", 0, 0),
    ]
    assert [images_of(node, uid) for uid in every] == [8, 8, 8, 3, 8], "a plan deletes nothing"
    keeper.sweep()
    assert [images_of(node, uid) for uid in every] == [8, 8, 8, 0, 8]

    age(node, 25)
    assert keeper.plan().results.files == 3, "of the job that was delivered, and the report"
    keeper.sweep()
    assert [images_of(node, uid) for uid in every] == [0, 8, 8, 0, 8]
    age(node, 1000)
    keeper.sweep()
    assert [images_of(node, uid) for uid in every] == [0, 8, 0, 0, 8], "undelivered and unfinished stay for ever"
    assert not (node.spool.root / "results" / done).exists()
    assert sorted(path.name for path in (node.spool.root / "results" / stuck).iterdir()) == ["seg.dcm", "sr.dcm"]
    assert files(node) == 16 + 2
    told = [event["detail"] for event in events(node, "images deleted")]
    assert [(d["instances"], d["series"]) for d in told] == [(3, unmatched), (8, delivered), (8, failed)]
    assert len(events(node, "results deleted")) == 2
    assert "8 instances deleted, " in node.told(delivered)
    for uid in (failed, unmatched):  # neither `retry` nor `route` can be done any more
        last = node.told(uid).splitlines()[-1]
        assert "send the series again: its images were deleted at " in last
        assert "dicom-node r" not in last

    with transaction(node.engine) as tx:  # somebody gives up what the PACS refused
        assert cancel(tx, stuck) == (stuck, False, 1)
    assert "was canceled; do `dicom-node resend" in node.told(stuck).splitlines()[-1]
    keeper.sweep()
    assert images_of(node, refused) == 0
    assert not (node.spool.root / "results" / stuck).exists()

    with pytest.raises(ConflictError, match="the images were deleted"):
        node.retry(done)
    with transaction(node.engine) as tx, pytest.raises(ConflictError, match=r"the results .* were deleted"):
        resend(tx, done, node.enqueuer)
    node.receive(sorted((tmp_path / "delivered").iterdir()))
    assert images_of(node, delivered) == 8
    newest = node.jobs(series=delivered)[0]
    assert (newest["state"], newest["series_revision"]) == (JobState.SCHEDULED, 2), "sent again, it is analysed again"


def test_a_short_disk_takes_the_oldest_of_what_may_go_and_says_so(
    node: Operated, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    delivered = receive(node, tmp_path / "delivered")
    complete(node, delivered)
    node.send(Sent(0x0000), Sent(0x0000))
    waiting = receive(node, tmp_path / "waiting")
    complete(node, waiting)
    more_than_any_disk_mib = 2**40

    retention_of(node, free_mib=1).watch_disk()
    assert images_of(node, delivered) == 8, "there is room"
    retention_of(node, free_mib=more_than_any_disk_mib).watch_disk()

    assert (images_of(node, delivered), images_of(node, waiting)) == (0, 8)
    assert "the disk was short" in events(node, "images deleted")[0]["detail"]["reason"]
    assert len(events(node, "results deleted")) == 1
    assert "there is nothing left that may be deleted" in caplog.text


def test_rows_and_the_engines_rows_go_last_and_the_audit_trail_stays(node: Operated, tmp_path: Path) -> None:
    series = receive(node, tmp_path / "ct")
    job = complete(node, series)
    node.send(Sent(0x0000), Sent(0x0000))
    newer = node.retry(job)  # points at the older one
    node.complete(newer)
    node.send(Sent(0x0000), Sent(0x0000))
    kept = receive(node, tmp_path / "kept")
    schema = "dbos." if node.engine.dialect.name == "postgresql" else ""
    new = f"job/{node.jobs(series=kept)[0]['id']}/%"
    ended = f"UPDATE {schema}workflow_status SET status = 'SUCCESS', updated_at = 1"
    with transaction(node.engine) as tx:  # the engine says that all runs but the last one have ended long ago
        tx.execute(text(f"{ended} WHERE workflow_uuid NOT LIKE :new"), {"new": new})
        before = tx.scalar(select(func.count()).select_from(t.audit_event)) or 0
    age(node, 100)
    keeper = retention_of(node, images_days=10, results_days=10, rows_days=50, engine_days=5)
    assert keeper.plan().engine_rows > 0
    keeper.sweep()
    assert len(node.jobs()) == 3, "the files went only now"
    age(node, 100)
    assert keeper.plan().rows == 1
    keeper.sweep()

    with transaction(node.engine) as tx:
        tables = (t.series, t.study, t.job, t.result, t.delivery, t.delivery_attempt, t.audit_event)
        *left, audited = (tx.scalar(select(func.count()).select_from(table)) or 0 for table in tables)
        runs = tx.scalar(text(f"SELECT count(*) FROM {schema}workflow_status"))
    assert left == [1, 1, 1, 0, 0, 0]
    assert runs == 1
    assert audited > before
    assert images_of(node, kept) == 8


def test_debris_of_results_is_swept_and_nothing_that_is_young_or_wanted(node: Operated, tmp_path: Path) -> None:
    series = receive(node, tmp_path / "ct")
    job = complete(node, series)
    long_ago = time.time() - 7 * 24 * 3600
    for name in ("of-an-attempt-that-failed", "young", job):
        node.spool.write(f"results/{name}", "seg.dcm", b"0")
        if name != "young":
            os.utime(node.spool.root / "results" / name, (long_ago, long_ago))
    done = retention_of(node).sweep()
    assert done is not None
    assert done.orphans == 1
    assert sorted(path.name for path in (node.spool.root / "results").iterdir()) == sorted(["young", job])


# Waits for a line of input before it deletes a file.
SLOW = """\
import sys
from pathlib import Path
from dicom_node.db.engine import open_engine
from dicom_node.engine import Enqueuer
from dicom_node.retain import Retention
from dicom_node.settings import Retain
from dicom_node.spool import Spool

engine, spool = open_engine(sys.argv[1]), Spool(Path(sys.argv[2]), 0)
delete = spool.delete

def told(path):
    print(path, flush=True)
    sys.stdin.readline()
    delete(path)

spool.delete = told
Retention(Retain(unmatched_days=1), engine, Enqueuer(engine), spool, "killed").sweep()
"""


def test_a_kill_anywhere_leaves_no_row_without_its_file_and_can_be_finished(node: Operated, tmp_path: Path) -> None:
    series = [receive(node, tmp_path / f"{n}", slices=3) for n in range(4)]
    age(node, 100)
    for deleted in (0, 2):
        command = [sys.executable, "-c", SLOW, node.engine.url.render_as_string(False), str(node.spool.root)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(deleted):
                assert process.stdout.readline()
                process.stdin.write("\n")
                process.stdin.flush()
            assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert all(images_of(node, uid) in (0, 3) for uid in series)
        with transaction(node.engine) as tx:
            tx.execute(update(t.sweep).values(held_until=utc_now() - timedelta(days=1)))  # its lease runs out
    assert files(node) > sum(images_of(node, uid) for uid in series), "files without rows are left"

    retention_of(node, unmatched_days=1).sweep()
    node.spool.sweep_orphans(lambda paths: set(), older_than_s=-1)

    assert sum(images_of(node, uid) for uid in series) == files(node) == 0
    assert len(events(node, "images deleted")) == 4, "each series once"


def test_what_a_destination_has_to_prove_stays_until_it_is_proven(node: Operated, tmp_path: Path) -> None:
    series = receive(node, tmp_path / "ct")
    complete(node, series)
    node.send(Sent(0x0000), Sent(0x0000))
    with transaction(node.engine) as tx:
        ids = list(tx.scalars(select(t.delivery.c.id)))
        due = {"destination": "pacs", "attempt": 1, "state": "due", "since": utc_now()}
        tx.execute(t.proof.insert(), [{"delivery_id": one, **due} for one in ids])
        unproven = select(func.count()).select_from(text("v_delivery_unproven"))
        assert tx.scalar(unproven) == 2
    age(node, 100)
    keeper = retention_of(node, images_days=10, results_days=10, rows_days=10)
    keeper.sweep()
    assert images_of(node, series) == 8
    with transaction(node.engine) as tx:
        tx.execute(update(t.proof).values(state="proven"))
        assert tx.scalar(unproven) == 0
    keeper.sweep()
    assert images_of(node, series) == 0
    age(node, 100)
    keeper.sweep()
    assert node.jobs() == [], "its rows went, those of the proof included"


def test_what_somebody_took_up_again_stays(node: Operated, tmp_path: Path) -> None:
    series = receive(node, tmp_path / "ct")
    job = complete(node, series)
    node.send(Sent(0x0000), Sent(0x0000))
    age(node, 100)
    with transaction(node.engine) as tx:
        (series_id,) = retention.due_images(tx, Kind.DELIVERED, utc_now(), 10)
    node.retry(job)
    with transaction(node.engine) as tx:
        assert retention.delete_images(tx, series_id, Kind.DELIVERED, utc_now(), "") == []
    assert images_of(node, series) == 8
