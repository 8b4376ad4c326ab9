"""The same series twice, or in halves, by two ways at once: real senders, one series, one job, every instance once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from sqlalchemy import func, select, update

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.engine import Enqueuer
from dicom_node.engine import migrate as migrate_engine
from tests.ct import small_ct
from tests.integration.operated import CARD, RULES
from tests.integration.receive.conftest import Running

SLICES = 12


def send(node: Running, called: str, paths: Sequence[Path]) -> list[int]:
    """Send files on an association of their own; the status of each."""
    ae = AE("SCANNER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", node.port, ae_title=called)
    statuses = [int(assoc.send_c_store(dcmread(path)).Status) for path in paths]
    assoc.release()
    return statuses


@pytest.fixture
def two(database_url: str, tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """Two nodes on one database and one spool, each called by a name of its own."""
    migrate.upgrade(database_url)
    migrate_engine(database_url)
    names = ("AINODE", "AI_NIGHT")
    nodes = [
        Running(tmp_path, database_url, called_ae=[name], settings={"assemble": {"quiet_s": 3600}}) for name in names
    ]
    yield nodes[0], nodes[1]
    for node in nodes:
        node.stop()


def twice(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    return paths, paths


def halves(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    return paths[::2], paths[1::2]


def overlapping(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    return paths[:8], paths[4:][::-1]


@pytest.mark.parametrize("share", [twice, halves, overlapping])
def test_one_series_by_two_ways_at_once_is_one_job(
    two: tuple[Running, Running], tmp_path: Path, share: Callable[[list[Path]], tuple[list[Path], list[Path]]]
) -> None:
    first, second = two
    paths = small_ct(tmp_path / "ct", slices=SLICES, rows=16, columns=16)
    with ThreadPoolExecutor(2) as senders:
        ways = zip((first, second), ("AINODE", "AI_NIGHT"), share(paths), strict=True)
        sent = list(senders.map(lambda way: send(*way), ways))
    assert {status for statuses in sent for status in statuses} == {0x0000}
    first.soon(lambda: all(row.end_reason == "released" for row in first.rows(t.association)))
    with transaction(first.engine) as tx:
        tx.execute(update(t.series).values(settle_at=utc_now()))
    enqueuer = Enqueuer(first.engine)
    catalog = Catalog(RULES, {"lung": CARD}, {})
    assemblers = [Assembler(node.settings, catalog, node.engine, enqueuer, node.spool) for node in two]
    with ThreadPoolExecutor(2) as closing:
        assert sum(closing.map(lambda assembler: assembler.sweep(), assemblers)) == 1
    send(second, "AI_NIGHT", paths)  # all of it once more, when it is complete
    assert [assembler.sweep() for assembler in assemblers] == [0, 0]
    (series,) = first.rows(t.series)
    assert (series.state, series.revision, series.instance_count) == ("complete", 1, SLICES)
    (job,) = first.rows(t.job)
    assert (job.state, len(job.slices), len(set(job.slices))) == ("scheduled", SLICES, SLICES)
    with transaction(first.engine) as tx:
        assert tx.scalar(select(func.count()).select_from(t.instance)) == SLICES
    enqueuer.close()
