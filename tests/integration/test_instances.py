"""Rows of instances, when several receivers write them at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.driver import run
from dicom_node.db.engine import open_engine, transaction
from dicom_node.db.instances import NewInstance, Stored, paths_known, store_instances
from tests.stored import alike, sender

ROUNDS, RECEIVERS = 25, 3


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrate.upgrade(database_url)
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def instance(number: int, *, study: str = "1.2", series: str = "1.2.3", association: int = 0) -> NewInstance:
    return NewInstance(
        sender=sender(association=f"{association:036}"),
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"instances/00/{study}-{series}-{number}-{association}.dcm",
        size=1,
        digest=f"{number:064}",
        header={},
    )


def no_file(path: str, digest: str) -> bool:
    """Say what a spool without files says of each."""
    return False


def test_receivers_that_grow_one_series_at_once_neither_lose_instances_nor_lock_each_other_out(engine: Engine) -> None:
    together = Barrier(RECEIVERS)

    def receive(number: int) -> list[Stored]:
        found = []
        for turn in range(ROUNDS):
            first = (number * ROUNDS + turn) * 4
            together.wait(30)
            with transaction(engine) as tx:
                found += store_instances(
                    tx, [instance(first + n, association=number) for n in range(4)], alike(30.0), no_file
                )
        return found

    with ThreadPoolExecutor(RECEIVERS) as pool:
        outcomes = list(pool.map(receive, range(RECEIVERS)))
    assert outcomes == [[Stored.NEW] * 4 * ROUNDS] * RECEIVERS
    with transaction(engine) as tx:
        assert tx.scalars(select(t.series.c.instance_count)).all() == [4 * ROUNDS * RECEIVERS]


def test_receivers_that_find_the_same_new_studies_at_once_agree(engine: Engine) -> None:
    together = Barrier(2)

    def receive(number: int) -> list[Stored]:
        found = []
        for turn in range(ROUNDS):
            # two studies, whose series sort the other way round for the two receivers
            low, high = (f"1.{turn}.1", f"1.{turn}.2")[:: 1 if number else -1]
            new = [
                instance(1, study=low, series=f"2.{turn}.{number}.1", association=number),
                instance(1, study=high, series=f"2.{turn}.{number}.2", association=number),
            ]
            together.wait(30)
            with transaction(engine) as tx:
                found += store_instances(tx, new, alike(30.0), no_file)
        return found

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(receive, range(2))) == [[Stored.NEW] * 2 * ROUNDS] * 2
    with transaction(engine) as tx:
        assert len(tx.scalars(select(t.study.c.id)).all()) == 2 * ROUNDS
        assert len(tx.scalars(select(t.series.c.id)).all()) == 4 * ROUNDS


def test_the_same_instance_of_several_receivers_has_one_row_and_one_winner(engine: Engine) -> None:
    together = Barrier(RECEIVERS)

    def receive(number: int) -> list[Stored]:
        found = []
        for turn in range(ROUNDS):
            together.wait(30)
            with transaction(engine) as tx:
                found += store_instances(tx, [instance(turn, association=number)], alike(30.0), no_file)
        return found

    with ThreadPoolExecutor(RECEIVERS) as pool:
        outcomes = list(pool.map(receive, range(RECEIVERS)))
    for of_one in zip(*outcomes, strict=True):
        assert sorted(of_one) == [Stored.NEW] + [Stored.SAME] * (RECEIVERS - 1)
    with transaction(engine) as tx:
        kept = tx.scalars(select(t.instance.c.path)).all()
        assert len(kept) == ROUNDS
        assert paths_known(tx, [*kept, "instances/00/none.dcm"]) == set(kept)
        assert tx.scalars(select(t.series.c.instance_count)).all() == [ROUNDS]


def test_what_the_driver_refuses_is_told_as_sqlalchemy_tells_it(engine: Engine) -> None:
    with pytest.raises(IntegrityError, match="association"), transaction(engine) as tx:
        run(tx, "INSERT INTO association (id) VALUES (NULL)")
    with transaction(engine) as tx:
        assert run(tx, "DELETE FROM association") == 0
