"""Who only reads waits for nobody who writes, and keeps nobody waiting: SQLite knows one writer at a time."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from dicom_node.cli import cli
from dicom_node.db.engine import transaction
from dicom_node.health import State, ready
from dicom_node.metrics import Metrics
from dicom_node.retain import Retention
from tests.ct import small_ct
from tests.integration.operated import operated

COMMANDS = (
    ("jobs",),
    ("jobs", "--json"),
    ("explain", "ACC"),
    ("who-has", "ACC"),
    ("audit", "list"),
    ("audit", "verify"),
    ("retrieve", "list"),
)


def test_a_command_or_a_check_that_only_reads_is_answered_while_somebody_writes(tmp_path: Path) -> None:
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node:
        node.settings.file.write_text(f'[database]\nurl = "{node.settings.database.url}"\n')
        node.receive(small_ct(tmp_path / "ct", slices=6))
        (job,) = node.jobs()
        node.complete(job["id"])
        retention = Retention(node.settings.retain, node.engine, node.enqueuer, node.spool, "test")
        metrics = Metrics(node.settings, node.engine, node.spool)

        with transaction(node.engine):  # a write that takes its time
            for words in COMMANDS:
                command = [job["id"] if word == "ACC" else word for word in words]
                done = CliRunner().invoke(cli, [*command, "--settings", str(node.settings.file)])
                assert done.exit_code == 0, (words, done.output)
            checks = {one.name: one.state for one in ready(node.settings, node.engine, node.spool).checks}
            assert checks["database"] is State.OK
            assert b"dicom_node_database_up 1.0" in metrics.exposition()
            assert retention.plan().rows == 0
