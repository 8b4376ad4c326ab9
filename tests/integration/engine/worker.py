"""A process that runs jobs of which only the end matters: the name of the model says how it behaves.

``python -m tests.integration.engine.worker SETTINGS SLOT``
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from dbos import DBOS
from sqlalchemy import Connection, Engine

from dicom_node.db.engine import commit, open_engine
from dicom_node.db.jobs import claim_job, finish_completed, finish_retry
from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.job import Job, Succeeded, Trace
from dicom_node.domain.model import OutputKind
from dicom_node.domain.uids import result_uid
from dicom_node.engine import Enqueuer, Executor, executor
from dicom_node.settings import load_settings


def main(settings_file: str, slot: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    settings = load_settings(Path(settings_file))
    engine = open_engine(settings.database.url)
    enqueuer = Enqueuer(engine)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    home = settings.file.parent

    def on_job(job_id: str, executor_id: str) -> None:
        if (home / "raise").exists():
            raise OSError("as asked")
        job = commit(engine, lambda tx: claim_job(tx, job_id, executor_id, {}, enqueuer))
        if job is None:
            return
        (home / f"{job.id}.{job.attempt}").touch()
        behave(job, home)
        commit(engine, lambda tx: end(tx, job, enqueuer))

    if (home / "hang").exists():
        executor.LEAVE_S = 1.0
        DBOS.destroy = lambda **_: time.sleep(600)  # type: ignore[method-assign]
    if (home / "slow").exists():
        executor.commit = slow_commit  # type: ignore[assignment,attr-defined]
    Executor(settings, engine, role="work", slot=int(slot), queues={"jobs": 1}, on_job=on_job).run(stop)


def slow_commit(engine: Engine, step: Callable[[Connection], object]) -> None:
    commit(engine, step)
    time.sleep(1)  # several heartbeats


def behave(job: Job, home: Path) -> None:
    if job.model == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.model == "nap":
        time.sleep(0.2)
    if job.model == "wait":
        while not (home / "go").exists():
            time.sleep(0.02)


def end(tx: Connection, job: Job, enqueuer: Enqueuer) -> bool:
    if job.model == "fail once" and job.attempt == 1:
        return finish_retry(tx, job, "as asked", 1.5, enqueuer)
    return finish_completed(tx, job, Succeeded((result(job),), Trace({"infer": 0.1})), enqueuer)


def result(job: Job) -> ResultObject:
    return ResultObject(
        OutputKind.SR,
        "1.2.840.10008.5.1.4.1.1.88.34",
        result_uid(job.id, "sr"),
        result_uid(job.id, "sr/series"),
        "1.2.840.10008.1.2.1",
        f"results/{job.id}/sr.dcm",
        1,
        "0" * 64,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
