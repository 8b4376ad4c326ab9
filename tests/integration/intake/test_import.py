"""`dicom-node import`: folders, discs and archives, once, whole, and again without harm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian
from sqlalchemy import Engine, select, update

from dicom_node import engine as job_engine
from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction
from dicom_node.domain.rule import Condition, Operator, Rule
from dicom_node.engine import Enqueuer
from dicom_node.intake.batch import Became, Outcome
from dicom_node.intake.importing import Import, import_paths
from dicom_node.settings import Settings, load_settings
from dicom_node.spool import Spool
from tests.ct import small_ct
from tests.integration.operated import CARD
from tests.integration.receive.objects import FILES
from tests.peers.tools import dcmtk


class Node:
    """A node's settings, database and spool, and nothing that runs."""

    def __init__(self, home: Path, url: str) -> None:
        (home / "rules").mkdir(parents=True)
        self.file = home / "settings.toml"
        self.file.write_text(f'[database]\nurl = "{url}"\n\n[spool]\npath = "spool"\nreserve_mib = 0\n')
        migrate.upgrade(url)
        self.settings: Settings = load_settings(self.file, {})
        self.spool = Spool(self.settings.spool.path, 0)
        self.spool.prepare()
        self.engine: Engine = open_engine(url)

    def take(
        self,
        *paths: Path,
        tell: Callable[[Outcome], None] = lambda one: None,
        dry_run: bool = False,
        called: str = "",
    ) -> Import:
        around = self.settings, self.spool, self.engine
        return import_paths(list(paths), *around, actor="operator x", tell=tell, dry_run=dry_run, called_ae=called)

    def rows(self, table: object = t.instance) -> list[object]:
        with transaction(self.engine) as tx:
            return list(tx.execute(select(table)))  # type: ignore[call-overload]

    def files(self) -> int:
        return len(list((self.spool.root / "instances").rglob("*.dcm")))

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "dicom_node", "import", *map(str, words), "--settings", str(self.file)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node", f"sqlite:///{tmp_path / 'node.db'}")


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    return small_ct(tmp_path / "ct", slices=6, rows=16, columns=16)


def test_what_is_there_is_asked_about_again_when_another_title_is_named(
    tmp_path: Path, slices: list[Path], database_url: str
) -> None:
    node = Node(tmp_path / "n", database_url)
    job_engine.migrate(node.settings.database.url)
    rules = [
        Rule(name, name, (), (Condition("called_ae", Operator.ONE_OF, (called,)),))
        for name, called in (("chest", "AINODE"), ("liver", "LIVER"))
    ]
    catalog = Catalog(tuple(rules), {rule.model: replace(CARD, name=rule.model) for rule in rules}, {})
    enqueuer = Enqueuer(node.engine)
    settings = node.settings.model_copy(
        update={"assemble": node.settings.assemble.model_copy(update={"quiet_s": 1e-6})}
    )
    node.settings = settings

    def come(called: str, *, dry_run: bool = False) -> list[str]:
        assert node.take(slices[0].parent, called=called, dry_run=dry_run).is_whole
        Assembler(settings, catalog, node.engine, enqueuer, node.spool).sweep()
        return sorted(row.model for row in node.rows(t.job))  # type: ignore[attr-defined]

    assert come("") == ["chest"]
    assert come("LIVER", dry_run=True) == ["chest"]
    assert come("LIVER") == come("LIVER") == come("") == ["chest", "liver"]
    came = [(row.called_ae, row.end_reason, row.stored) for row in node.rows(t.association)]  # type: ignore[attr-defined]
    assert sorted(came) == [("AINODE", "released", 6), ("LIVER", "released", 0)], "and nothing is noted twice"
    assert (len(node.rows()), node.files()) == (6, 6)
    enqueuer.close()
    node.engine.dispose()


def test_a_folder_is_taken_and_again_without_harm(tmp_path: Path, slices: list[Path], database_url: str) -> None:
    node = Node(tmp_path / "n", database_url)
    (slices[0].parent / "notes.txt").write_text("a note of 200 characters" * 10)
    first = node.take(slices[0].parent)
    assert first.counts == {Became.TAKEN: 6, Became.PASSED_OVER: 1}
    assert first.is_whole
    again = node.take(slices[0].parent)
    assert again.counts == {Became.THERE: 6, Became.PASSED_OVER: 1}
    assert again.is_whole
    assert (len(node.rows()), node.files()) == (6, 6)
    (association,) = node.rows(t.association)
    assert (association.calling_ae, association.called_ae) == ("IMPORT", "AINODE")  # type: ignore[attr-defined]
    assert (association.end_reason, association.stored) == ("released", 6)  # type: ignore[attr-defined]
    told = [row.detail for row in node.rows(t.audit_event) if row.event == "instances imported"]  # type: ignore[attr-defined]
    assert [(one["taken"], one["already_there"], one["passed_over"]) for one in told] == [(6, 0, 1), (0, 6, 1)]
    assert str(slices[0].parent) not in json.dumps(told), "names of files may be names of patients"
    node.engine.dispose()


def test_what_an_earlier_version_stored_is_there(node: Node, slices: list[Path]) -> None:
    node.take(slices[0].parent)
    data = slices[0].read_bytes()
    earlier = hashlib.sha256(data[144 + int.from_bytes(data[140:144], "little") :]).hexdigest()
    mine = t.instance.c.sop_instance_uid == dcmread(slices[0]).SOPInstanceUID
    with transaction(node.engine) as tx:
        assert tx.execute(update(t.instance).where(mine).values(digest=earlier)).rowcount == 1
    assert node.take(slices[0].parent, dry_run=True).counts == {Became.THERE: 6}
    assert node.take(slices[0].parent).counts == {Became.THERE: 6}


def test_every_encoding_is_known_to_be_whole(node: Node, tmp_path: Path) -> None:
    for name in FILES.values():
        shutil.copy(str(get_testdata_file(name)), tmp_path / name)
    done = node.take(*(tmp_path / name for name in FILES.values()), dry_run=True)  # some are one object
    assert done.counts == {Became.TAKEN: len(FILES)}, [one.reason for one in done.refused]


def test_a_disc_is_taken_and_what_its_directory_misses_is_told(node: Node, tmp_path: Path, slices: list[Path]) -> None:
    disc = tmp_path / "disc"
    (disc / "IMAGES").mkdir(parents=True)
    for number, path in enumerate(slices):
        shutil.copy(path, disc / "IMAGES" / f"IM{number}")
    named = [f"IMAGES/IM{number}" for number in range(6)]
    dcmtk("dcmgpdir", "--input-directory", str(disc), "--output-file", str(disc / "DICOMDIR"), *named)
    assert node.take(disc, dry_run=True).is_whole
    (disc / "IMAGES" / "IM3").unlink()
    done = node.take(disc)
    assert done.counts == {Became.TAKEN: 5, Became.PASSED_OVER: 1}
    assert [one.endswith("lists IMAGES/IM3, which is not there") for one in done.missing] == [True]
    assert not done.is_whole


def test_an_archive_is_read_in_place_and_its_names_lead_nowhere(node: Node, tmp_path: Path, slices: list[Path]) -> None:
    file = tmp_path / "research.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in zip(slices, ("a/1.dcm", "../../2.dcm", "/etc/3.dcm", "C:\\4.dcm", "b/5", "6"), strict=True):
            archive.write(path, name)
        archive.writestr("readme.txt", "x" * 500)
        archive.writestr("more.zip", b"PK")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(node.spool.root)}
    done = node.take(file)
    assert done.counts == {Became.TAKEN: 6, Became.PASSED_OVER: 1, Became.REFUSED: 1}
    assert done.refused[0].reason.startswith("an archive inside an archive")
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(node.spool.root)}
    assert {path for path in after - before if ".db" not in path.name} == set()


def test_archives_that_are_broken_or_lie_cost_only_themselves(node: Node, tmp_path: Path, slices: list[Path]) -> None:
    good, bad, no_zip, lying = (tmp_path / f"{name}.zip" for name in ("good", "bad", "none", "lying"))
    for file in (good, bad):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.write(slices[0 if file is good else 1], "one.dcm")
    damaged = bytearray(bad.read_bytes())
    damaged[1500] ^= 0xFF
    bad.write_bytes(damaged)
    no_zip.write_bytes(b"this is no archive")
    content = good.read_bytes().replace(
        (slices[0].stat().st_size).to_bytes(4, "little"), (6 * 1024**3 & 0xFFFFFFFF | 0xF0000000).to_bytes(4, "little")
    )
    lying.write_bytes(content)
    done = node.take(good, bad, no_zip, lying)
    assert done.counts == {Became.TAKEN: 1, Became.REFUSED: 3}
    assert len(node.rows()) == 1


def test_a_bomb_does_not_fill_the_disk(node: Node, tmp_path: Path, slices: list[Path]) -> None:
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.dcm", "w") as entry:
        entry.write(slices[0].read_bytes())
        for _ in range(300):
            entry.write(bytes(1024 * 1024))
    assert file.stat().st_size < 1_000_000
    done = node.take(file)  # 300 MiB of zeros after a slice are not whole elements
    assert done.counts == {Became.REFUSED: 1}
    assert list((node.spool.root / "incoming").iterdir()) == []


def test_files_that_are_cut_off_are_refused_with_the_place(node: Node, tmp_path: Path, slices: list[Path]) -> None:
    whole = slices[0].read_bytes()
    deflated = dcmread(slices[0])
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    cut = {"pixels": whole[:-10], "head": whole[:200], "deflated": (tmp_path / "deflated.dcm").read_bytes()[:-20]}
    for name, data in cut.items():
        (tmp_path / f"{name}.cut").write_bytes(data)
    done = node.take(*(tmp_path / f"{name}.cut" for name in cut))
    reasons = {Path(one.found.name).stem: one.reason for one in done.refused}
    assert reasons["pixels"] == "the data set ends inside element (7FE0,0010)"
    assert "meta information" in reasons["head"] or "ends before" in reasons["head"]
    assert "deflated" in reasons["deflated"]
    assert node.files() == 0


def test_other_bytes_under_a_known_uid_are_refused(node: Node, tmp_path: Path, slices: list[Path]) -> None:
    node.take(slices[0])
    ds = dcmread(slices[0])
    ds.PatientComments = "changed"
    ds.save_as(tmp_path / "changed.dcm")
    for dry_run in (True, False):
        done = node.take(tmp_path / "changed.dcm", dry_run=dry_run)
        assert "other bytes" in done.refused[0].reason
    assert len(node.rows()) == 1


def test_a_dry_run_says_the_same_and_stores_nothing(node: Node, slices: list[Path], tmp_path: Path) -> None:
    ds = dcmread(slices[5])
    del ds.StudyInstanceUID
    ds.save_as(slices[5])
    dry = node.take(slices[0].parent, dry_run=True)
    assert not node.rows()
    assert not node.rows(t.audit_event)
    wet = node.take(slices[0].parent)
    assert dry.counts == wet.counts == {Became.TAKEN: 5, Became.REFUSED: 1}
    assert dry.refused[0].reason == wet.refused[0].reason


def test_the_command_tells_what_it_did_and_goes_on_after_it_was_killed(node: Node, tmp_path: Path) -> None:
    many = small_ct(tmp_path / "many", slices=120, rows=64, columns=64)
    killed = subprocess.Popen(node.command(many[0].parent), stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while not node.rows() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    kept = len(node.rows())
    assert kept
    done = subprocess.run(
        node.command(many[0].parent, "--json"), capture_output=True, check=False, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["taken"] + said["already there"], said["refused"]) == (120, 0)
    assert said["already there"] >= kept
    assert len(node.rows()) == 120


def test_the_command_fails_when_something_was_refused_and_when_there_was_nothing(node: Node, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.dcm").write_bytes(bytes(128) + b"DICM")
    for path, told in (("empty", "0 taken"), ("half.dcm", "1 refused")):
        done = subprocess.run(node.command(tmp_path / path), capture_output=True, check=False, text=True, timeout=180)
        assert done.returncode == 1
        assert told in done.stdout
