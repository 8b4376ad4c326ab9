"""No file is read while a transaction writes: on SQLite a slow disk would keep every receiver from answering.

Each test watches every file that the node opens, and asks SQLite at that moment whether another process may write.
"""

from __future__ import annotations

import builtins
import io
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from dicom_node import operate
from dicom_node.cli import cli
from dicom_node.db import tables as t
from dicom_node.db.engine import reading, transaction
from dicom_node.domain.rule import Condition, Operator
from dicom_node.errors import ConflictError
from tests.ct import small_ct
from tests.integration.operated import operated
from tests.integration.test_assemble import CHEST, Site, open_site
from tests.integration.test_notify import Hook, notifier, step
from tests.stored import sender
from tests.unit.results.case import built_of, make_case, nodules

# No row keeps it, so that it is read from the file
UNKEPT = Condition("BitsStored", Operator.AT_LEAST, (1,))
RULE = replace(CHEST, conditions=(*CHEST.conditions, UNKEPT))


class Disk:
    """What was opened below a folder, and by whom SQLite was held meanwhile; `first` is done when the first file is."""

    def __init__(self, root: Path, database: Path) -> None:
        self.root, self.database = root, database
        self.read: list[str] = []
        self.held: list[str] = []
        self.first: Callable[[], object] = lambda: None

    def opened(self, file: object) -> None:
        if not isinstance(file, (str, Path)) or not Path(file).is_relative_to(self.root):
            return
        self.read.append(Path(file).name)
        first, self.first = self.first, lambda: None
        other = sqlite3.connect(self.database, timeout=0.0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        except sqlite3.OperationalError:
            self.held.append(Path(file).name)
        finally:
            other.close()
        first()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], Disk]:
    """Watch every file below a folder from now on."""

    def watch(root: Path, database: Path) -> Disk:
        disk, really = Disk(root, database), builtins.open

        def opening(file: Any, *given: Any, **named: Any) -> Any:
            disk.opened(file)
            return really(file, *given, **named)

        monkeypatch.setattr(builtins, "open", opening)
        monkeypatch.setattr(io, "open", opening)
        return disk

    return watch


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from open_site(tmp_path, f"sqlite:///{tmp_path / 'node.db'}")


def with_a_copy(site: Site) -> list[Path]:
    """A series of which one slice came twice under two UIDs: only its pixels tell that they are one."""
    paths = site.series()
    ds = dcmread(paths[3])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.save_as(paths[3].with_suffix(".again.dcm"))
    return [*paths, paths[3].with_suffix(".again.dcm")]


def test_a_series_is_closed_and_asked_about_again(site: Site, watched: Callable[[Path, Path], Disk]) -> None:
    paths = with_a_copy(site)
    site.store(paths)
    site.pass_time(3600)
    assembler = site.assembler(RULE, replace(RULE, name="other", model="liver", conditions=(_called("OTHER"), UNKEPT)))
    disk = watched(site.spool.root, site.home / "node.db")
    assert assembler.sweep() == 1
    assert len(disk.read) == 3, "two slices at one place, and the first of all"
    (job,) = site.jobs()
    assert (job.state, len(job.slices)) == ("scheduled", 8)

    site.store(paths, by=replace(sender(association="b" * 36), called_ae="OTHER"))
    disk.read.clear()
    assembler.sweep()
    assert len(disk.read) == 3
    assert [job.model for job in site.jobs()] == ["liver", "lung"]
    assert disk.held == []


def _called(title: str) -> Condition:
    return Condition("called_ae", Operator.ONE_OF, (title,))


def test_what_comes_while_files_are_read_is_closed_with_the_rest(
    site: Site, watched: Callable[[Path, Path], Disk]
) -> None:
    *paths, copy = with_a_copy(site)
    late = site.series()[0]
    ds = dcmread(late)
    last = dcmread(paths[-1])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = last.StudyInstanceUID, last.SeriesInstanceUID
    ds.FrameOfReferenceUID, ds.InstanceNumber = last.FrameOfReferenceUID, 9
    ds.ImagePositionPatient = last.ImagePositionPatient
    ds.ImagePositionPatient[2] += 2.5
    ds.save_as(late)
    site.store([*paths, copy])
    site.pass_time(3600)
    assembler = site.assembler(RULE)
    disk = watched(site.spool.root, site.home / "node.db")

    def one_more() -> None:
        site.store([late])
        site.pass_time(3600)  # it is due all the same

    disk.first = one_more
    assert assembler.sweep() == 0
    assert site.jobs() == []
    assert (site.one().state, site.one().revision) == ("receiving", 0)
    assert assembler.sweep() == 1
    (job,) = site.jobs()
    assert (job.state, len(job.slices)) == ("scheduled", 9)


def test_a_job_is_run_again(site: Site, watched: Callable[[Path, Path], Disk]) -> None:
    site.store(with_a_copy(site))
    site.pass_time(3600)
    assembler = site.assembler(RULE)
    assembler.sweep()
    (job,) = site.jobs()
    with site.engine.begin() as tx:
        tx.execute(update(t.job).values(state="failed"))
    catalog = assembler._rulebook.catalog
    again = partial(operate.retry, catalog=catalog, max_attempts=3, enqueuer=site.enqueuer)
    disk = watched(site.spool.root, site.home / "node.db")

    looked = operate.look(partial(reading, site.engine), job.id, site.spool)
    site.store(site.series(1, lambda number, ds: _of(site, ds)))
    with pytest.raises(ConflictError, match="came while it was looked at; try again"), transaction(site.engine) as tx:
        again(tx, job.id, looked)
    with site.engine.begin() as tx:
        tx.execute(t.instance.delete().where(t.instance.c.revision.is_(None)))
        tx.execute(update(t.series).values(state="complete"))
    with transaction(site.engine) as tx:
        again(tx, job.id, looked)

    assert len(site.jobs()) == 2
    assert len(disk.read) == 2
    assert disk.held == []


def _of(site: Site, ds: Any) -> Any:
    """Put a slice into the series that is there."""
    with site.engine.begin() as tx:
        first = tx.execute(select(t.instance.c.header)).first()
    assert first is not None
    ds.StudyInstanceUID, ds.SeriesInstanceUID = first.header["StudyInstanceUID"], first.header["SeriesInstanceUID"]
    return ds


def test_a_report_goes_into_a_notification(tmp_path: Path, watched: Callable[[Path, Path], Disk]) -> None:
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node:
        hook = Hook()
        one = notifier(node, hook, found={"on": "finding", "to": ["pager"], "text": "$report"})
        case = make_case(tmp_path / "case")
        report = built_of(case, *nodules(case), node.spool).files["sr"]
        node.receive(small_ct(tmp_path / "ct", slices=8))
        (job,) = node.jobs()
        node.complete(job["id"])
        node.spool.write(f"results/{job['id']}", "sr.dcm", report)
        disk = watched(node.spool.root, tmp_path / "node.db")
        step(node, one)
        hook.close()
    assert "Nodule 1: Nodule, lung (left)" in hook.told()[0]["text"]
    assert (disk.read, disk.held) == (["sr.dcm"], [])


SETTINGS = """\
[destinations.pacs]
host = "127.0.0.1"
ae_title = "PACS"
"""
RULE_FILE = 'model = "{}"\nshadow = {}\n{}[when]\nModality = "CT"\n'


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_commands_that_read_the_models_and_write_rules(tmp_path: Path, watched: Callable[[Path, Path], Disk]) -> None:
    given = ["--settings", str(tmp_path / "settings.toml")]
    (tmp_path / "rules").mkdir()
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "rules" / "live.toml").write_text(RULE_FILE.format("lung_ct", "false", 'destinations = ["pacs"]\n'))
    (tmp_path / "rules" / "shadow.toml").write_text(RULE_FILE.format("chest_ct", "true", ""))
    run = CliRunner()
    assert run.invoke(cli, ["db", "upgrade", *given]).exit_code == 0
    disk = watched(tmp_path / "rules", next(tmp_path.glob("**/*.db")))
    for command in (["pause", "jobs"], ["resume", "jobs"], ["models", "promote", "chest_ct", "lung_ct", "--yes"]):
        told = run.invoke(cli, [*command, *given])
        assert told.exit_code == 0, told.output
    assert {"live.toml", "shadow.toml", "live.new"} <= {*disk.read}
    assert disk.held == []
