"""From stored instances to jobs: when a series closes, what is found, who wants it, and that all commits together."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from sqlalchemy import Connection, Engine, Row, func, insert, select, text, update

from dicom_node import engine as job_engine
from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog, fingerprint
from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.browse import list_without_job
from dicom_node.db.engine import open_engine, utc_now
from dicom_node.db.overview import counts
from dicom_node.db.unstored import forget_unstored, note_unstored
from dicom_node.domain.delivery import FolderDestination
from dicom_node.domain.job import Priority
from dicom_node.domain.model import Accepts, ModelCard
from dicom_node.domain.rule import Condition, Operator, Rule
from dicom_node.domain.uids import job_id
from dicom_node.engine import Enqueuer
from dicom_node.explain import explain
from dicom_node.loop import HostClock
from dicom_node.settings import Assemble, Database, Settings
from dicom_node.settings import Spool as SpoolSettings
from dicom_node.spool import Spool
from tests.ct import small_ct
from tests.stored import sender, store_files

CT = Condition("Modality", Operator.ONE_OF, ("CT",))
MANY = Condition("slices", Operator.AT_LEAST, (5,))
PACS = FolderDestination(name="pacs", timeout_s=1.0, path=Path("pacs"))
CHEST = Rule("chest", "lung", ("pacs",), (CT, MANY))
Change = Callable[[int, Dataset], Dataset | None]


@dataclass
class Site:
    """A node's database and spool, and an assembler on them."""

    home: Path
    settings: Settings
    engine: Engine
    spool: Spool
    enqueuer: Enqueuer

    def assembler(self, *rules: Rule, enqueuer: Any = None, clock: HostClock | None = None) -> Assembler:
        models = {name: card(name) for name in ("lung", "liver")}
        catalog = Catalog(rules or (CHEST,), models, {})
        return Assembler(self.settings, catalog, self.engine, enqueuer or self.enqueuer, self.spool, clock=clock)

    def store(self, paths: Sequence[Path], **options: Any) -> None:
        store_files(self.engine, self.spool, paths, sources=self.settings.assemble.waiting(), **options)

    def series(self, n: int = 8, change: Change = lambda number, ds: ds) -> list[Path]:
        return small_ct(self.home / generate_uid()[-8:], slices=n, rows=16, columns=16, change=change)

    def pass_time(self, seconds: float) -> None:
        """As if everything had happened so many seconds earlier."""
        back = timedelta(seconds=seconds)
        with self.engine.begin() as tx:
            for row in tx.execute(select(t.series)).all():
                earlier = {"settle_at": row.settle_at - back, "last_received_at": row.last_received_at - back}
                earlier["patient_until"] = row.patient_until - back
                tx.execute(update(t.series).where(t.series.c.id == row.id).values(**earlier))

    def one(self, table: Any = t.series) -> Row[Any]:
        with self.engine.begin() as tx:
            return tx.execute(select(table)).one()

    def jobs(self) -> list[Row[Any]]:
        with self.engine.begin() as tx:
            return list(tx.execute(select(t.job).order_by(t.job.c.series_revision, t.job.c.model)))

    def events(self) -> list[str]:
        with self.engine.begin() as tx:
            return list(tx.scalars(select(t.audit_event.c.event).order_by(t.audit_event.c.id)))

    def detail(self, event: str) -> Any:
        with self.engine.begin() as tx:
            return tx.scalars(
                select(t.audit_event.c.detail).where(t.audit_event.c.event == event).order_by(t.audit_event.c.id.desc())
            ).first()

    def enqueued(self) -> list[str]:
        schema = "dbos." if self.engine.dialect.name == "postgresql" else ""
        with self.engine.begin() as tx:
            return list(tx.scalars(text(f"SELECT workflow_uuid FROM {schema}workflow_status ORDER BY created_at")))


def card(name: str) -> ModelCard:
    return ModelCard(name, "1.0", name, "Test", "", "", Path(), "", "", 60.0, Accepts(("CT",)), ())


def open_site(home: Path, url: str) -> Iterator[Site]:
    migrate.upgrade(url)
    job_engine.migrate(url)
    engine = open_engine(url)
    settings = Settings(
        file=home / "settings.toml",
        database=Database(url=url),
        spool=SpoolSettings(path=home / "spool", reserve_mib=0),
        assemble=Assemble(quiet_s=30.0, sweep_s=0.05),
    )
    spool = Spool(home / "spool", reserve_mib=0)
    spool.prepare()
    enqueuer = Enqueuer(engine)
    yield Site(home, settings, engine, spool, enqueuer)
    enqueuer.close()
    engine.dispose()


@pytest.fixture
def both(tmp_path: Path, database_url: str) -> Iterator[Site]:
    """A site on SQLite, and then one on PostgreSQL."""
    yield from open_site(tmp_path, database_url)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site on SQLite."""
    yield from open_site(tmp_path, f"sqlite:///{tmp_path / 'node.db'}")


def test_each_called_title_has_its_rules_and_destinations(both: Site) -> None:
    site = both
    near = Condition("address", Operator.WITHIN, ("127.0.0.0/8",))
    far = Condition("address", Operator.WITHIN, ("10.0.0.0/8",))
    clinic = Rule("clinic", "lung", ("pacs",), (CT, Condition("called_ae", Operator.ONE_OF, ("AI_CLINIC",)), near))
    research = Rule("research", "liver", ("archive",), (CT, Condition("called_ae", Operator.ONE_OF, ("AI_RESEARCH",))))
    nobody = Rule("nobody", "liver", ("pacs",), (CT, far))
    for title in ("AI_CLINIC", "AI_RESEARCH"):
        site.store(site.series(), by=replace(sender(association=title), called_ae=title))
    site.pass_time(31)
    assert site.assembler(clinic, research, nobody).sweep() == 2
    assert {(job.rule, job.model, tuple(job.destinations)) for job in site.jobs()} == {
        ("clinic", "lung", ("pacs",)),
        ("research", "liver", ("archive",)),
    }


def test_a_quiet_series_becomes_one_enqueued_job_with_its_slices_in_order(both: Site) -> None:
    paths = both.series(8)
    both.store(paths[::-1])
    assembler = both.assembler()
    assert assembler.sweep() == 0
    assert both.jobs() == []
    both.pass_time(31)
    assert assembler.sweep() == 1
    assert assembler.sweep() == 0
    series = both.one()
    (job,) = both.jobs()
    assert job.id == job_id(series.id, 1, "lung", "1.0", 1)
    assert (job.state, job.rule, job.destinations, job.max_attempts) == ("scheduled", "chest", ["pacs"], 3)
    assert job.slices == [dcmread(path).SOPInstanceUID for path in paths]
    assert both.enqueued() == [f"job/{job.id}/1"]
    assert (series.state, series.revision) == ("complete", 1)
    assert quiet_s(series.close_reason) >= 31
    assert series.verdict["slices"] == 8
    assert series.verdict["slice_spacing_mm"] == 2.5
    assert series.refusal is None
    assert series.no_job_reason is None
    assert both.events() == ["series started", "series complete", "series routed", "job scheduled"]
    assert both.detail("series routed")["rules"] == ["rule chest matched: Modality is CT: yes; slices at least 5: yes"]
    with both.engine.begin() as tx:
        assert set(tx.scalars(select(t.instance.c.revision))) == {1}


def test_a_changed_rule_counts_for_the_next_series_and_is_audited(site: Site) -> None:
    settings = site.settings
    settings.rules.mkdir(exist_ok=True)
    models = {name: card(name) for name in ("lung", "liver")}
    catalog = Catalog((), models, {}, fingerprint(settings))
    assembler = Assembler(settings, catalog, site.engine, site.enqueuer, site.spool, rules_settle_s=0.0)
    site.store(site.series(8))
    site.pass_time(31)
    assembler.sweep()
    assert site.one().no_job_reason == "there is no rule"
    rule = settings.rules / "chest.toml"
    rule.write_text('model = "lung"\ndestinations = ["nowhere"]\n[when]\nModality = "CT"\n')
    assembler.sweep()
    assert "there is no destination 'nowhere'" in site.detail("changed rules not taken")["problems"][0]
    assembler = Assembler(
        settings,
        replace(catalog, destinations={"pacs": PACS}),
        site.engine,
        site.enqueuer,
        site.spool,
        rules_settle_s=0.0,
    )
    rule.write_text(rule.read_text().replace("nowhere", "pacs"))
    site.store(site.series(8), by=sender("CT1", "b" * 36))
    site.pass_time(31)
    assembler.sweep()
    assert site.detail("rules changed") == {"added": ["chest"]}
    assert [(job.rule, job.model) for job in site.jobs()] == [("chest", "lung")]


def test_a_series_closes_at_once_when_the_announced_number_is_there(site: Site) -> None:
    site.store(site.series(8, announce(8)))
    assert site.assembler().sweep() == 1
    assert site.one().close_reason == "all 8 announced instances arrived"
    assert site.jobs()[0].state == "scheduled"


def test_announced_instances_are_waited_for_and_then_the_series_is_refused(site: Site) -> None:
    site.store(site.series(8, announce(9)))
    assembler = site.assembler()
    site.pass_time(31)
    assert assembler.sweep() == 0
    site.pass_time(90)
    assert assembler.sweep() == 1
    assert quiet_s(site.one().close_reason) >= 121
    assert site.one().close_reason.endswith(" s, 8 of 9 instances arrived")
    (job,) = site.jobs()
    assert (job.state, job.error, job.slices) == ("failed", "8 of 9 instances arrived.", [])
    assert site.enqueued() == [f"report/{job.id}/1"], "the PACS is told, and no model runs"


def test_each_source_has_a_quiet_time_of_its_own_and_explain_names_it(both: Site) -> None:
    sources = {"fast": {"calling_ae": ["PACS*"], "quiet_s": 25}, "slow": {"calling_ae": ["CT1"], "quiet_s": 90}}
    both.settings = both.settings.model_copy(update={"assemble": Assemble.model_validate({"sources": sources})})
    assembler = both.assembler()
    for caller, least_s in (("PACS7", 25), ("OTHER", 30), ("CT1", 90)):
        both.store(paths := both.series(8), by=sender(caller, f"{caller:a<36}"))
        both.pass_time(least_s - 25)
        assert assembler.sweep() == 0, caller
        both.pass_time(25)
        assert assembler.sweep() == 1, caller
        assert quiet_s(both.detail("series complete")["closed"]) >= least_s
    with both.engine.begin() as tx:
        (story,) = explain(tx, str(dcmread(paths[0]).SeriesInstanceUID))
    assert any(re.search(r"quiet for \d+ s \(source slow\); 8 slices", line.text) for line in story.lines)


@pytest.mark.parametrize("end", [None, "connection lost"])
def test_what_a_cut_off_sender_still_has_is_waited_for(both: Site, end: str | None) -> None:
    both.store(both.series(8), end=end)
    assembler = both.assembler()
    both.pass_time(31)
    assert assembler.sweep() == 0, "the peer sends the rest again"
    both.pass_time(90)
    assert assembler.sweep() == 1
    assert quiet_s(both.one().close_reason) >= 121


def test_a_series_is_not_whole_while_instances_that_were_refused_are_away(both: Site) -> None:
    paths = both.series(9)
    both.store(paths[:7])  # a perfect volume, of not all of it
    for path in paths[7:]:
        ds = dcmread(path)
        with both.engine.begin() as tx:
            for _ in range(2):
                note_unstored(tx, ds.SeriesInstanceUID, ds.SOPInstanceUID, "less than 512 MiB free in the spool")
    both.pass_time(31)
    assembler = both.assembler()
    assert assembler.sweep() == 1
    (job,) = both.jobs()
    away = "2 instances were refused when they came and were not sent again: less than 512 MiB free in the spool."
    assert (job.state, job.error) == ("failed", f"Not whole: {away}")
    both.store(paths[7:], by=sender("CT1", "b" * 36))
    both.pass_time(31)
    assert assembler.sweep() == 1
    assert [job.state for job in both.jobs()] == ["failed", "scheduled"]
    with both.engine.begin() as tx:
        assert forget_unstored(tx, utc_now()) == 2


def test_a_refused_series_that_somebody_wants_is_a_failed_job_with_the_reason(both: Site) -> None:
    paths = both.series(8)
    both.store(paths[:4] + paths[5:])
    both.pass_time(121)
    both.assembler().sweep()
    (job,) = both.jobs()
    assert job.state == "failed"
    assert job.error.startswith("A gap: 5 mm between the slices at -17.5 mm and -12.5 mm")
    assert job.finished_at is not None
    assert both.one().refusal == job.error
    assert (job.failure, job.report, job.report_to) == ("not eligible", "due", ["pacs"])
    assert both.enqueued() == [f"report/{job.id}/1"], "the PACS is told, and no model runs"
    assert both.events()[1:] == ["series complete", "series refused", "series routed", "job failed"]


def test_a_gap_is_waited_for_before_the_series_is_refused(both: Site) -> None:
    paths = both.series(8)
    both.store(paths[:4] + paths[5:])
    both.pass_time(31)
    assembler = both.assembler()
    assert [assembler.sweep(), assembler.sweep()] == [0, 0]
    assert both.events() == ["series started", "series waits for slices"]
    both.store(paths[4:5])
    both.pass_time(31)
    assert assembler.sweep() == 1
    (job,) = both.jobs()
    assert (job.state, job.series_revision, len(job.slices)) == ("scheduled", 1, 8), "nothing of it had been refused"


def test_only_the_destinations_of_rules_that_want_it_are_told_of_a_refusal(site: Site) -> None:
    silent = replace(CHEST, name="silent", destinations=("archive",), report_failures=False)
    for rules, told in (((silent,), []), ((silent, CHEST), ["pacs"])):
        paths = site.series(8)
        site.store(paths[:4] + paths[5:])
        site.pass_time(121)
        site.assembler(*rules).sweep()
        job = max(site.jobs(), key=lambda row: row.created_at)
        assert (job.report_to, job.report) == (told, "due" if told else None)
    assert site.enqueued() == [f"report/{job.id}/1"]


def test_late_instances_take_a_report_back_that_is_not_written_yet(both: Site) -> None:
    paths = both.series(8)
    both.store(paths[:4] + paths[5:])
    both.pass_time(121)
    both.assembler().sweep()
    assert both.one().verdict["lacks_slices"]
    both.store(paths[4:5])
    both.pass_time(31)
    both.assembler().sweep()
    refused, new = both.jobs()
    assert (refused.state, refused.report) == ("failed", "canceled")
    assert not both.one().verdict["lacks_slices"]
    assert (new.state, new.supersedes, new.report) == ("scheduled", refused.id, None)
    assert both.detail("job superseded")["by"] == new.id


def test_a_series_that_nobody_wants_is_kept_with_every_reason(site: Site) -> None:
    liver = Rule("liver", "liver", ("pacs",), (Condition("BodyPartExamined", Operator.ONE_OF, ("LIVER",)),))
    off = Rule("off", "liver", ("pacs",), (CT,), enabled=False)
    site.store(site.series(4))
    site.pass_time(31)
    site.assembler(CHEST, liver, off).sweep()
    assert site.jobs() == []
    series = site.one()
    assert series.state == "complete"
    assert series.no_job_reason == (
        "no rule matched: rule chest did not match: slices at least 5: no, 4; "
        "rule liver did not match: BodyPartExamined is LIVER: no, CHEST; "
        "rule off did not match: the rule is enabled: no, it is switched off"
    )
    assert len(site.detail("series matched no rule")["rules"]) == 3


def test_a_localizer_and_a_screen_capture_among_the_slices_are_left_out_of_the_job(site: Site) -> None:
    def change(number: int, ds: Dataset) -> Dataset:
        if number == 0:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        elif number == 9:
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        return ds

    paths = site.series(10, change)
    site.store(paths)
    site.pass_time(31)
    site.assembler().sweep()
    assert site.jobs()[0].slices == [dcmread(path).SOPInstanceUID for path in paths[1:9]]
    assert site.detail("series complete")["set_aside"] == [
        "1 x a localizer (ImageType LOCALIZER)",
        "1 x a secondary capture",
    ]


def test_a_late_instance_makes_a_new_revision_whose_job_supersedes_the_old_one(both: Site) -> None:
    paths = both.series(8)
    both.store(paths[:7])
    both.pass_time(31)
    assembler = both.assembler()
    assembler.sweep()
    (first,) = both.jobs()
    with both.engine.begin() as tx:
        finished = add_result(tx, first.id)
    both.store(paths[7:])
    assert assembler.sweep() == 0
    both.pass_time(31)
    assembler.sweep()
    old, new = both.jobs()
    assert (old.state, old.id) == ("canceled", first.id)
    assert old.finished_at is not None
    assert (new.state, new.series_revision, new.supersedes, len(new.slices)) == ("scheduled", 2, first.id, 8)
    assert both.enqueued() == [f"job/{old.id}/1", f"job/{new.id}/1"]
    assert both.detail("job superseded") == {"revision": 2, "by": new.id, "deliveries_canceled": 1}
    with both.engine.begin() as tx:
        assert tx.scalars(select(t.delivery.c.state).where(t.delivery.c.result_id == finished)).one() == "canceled"
        revisions = tx.execute(select(t.instance.c.revision, func.count()).group_by(t.instance.c.revision)).all()
    assert sorted(map(tuple, revisions)) == [(1, 7), (2, 1)]


def test_an_old_job_is_canceled_also_when_the_series_is_wanted_no_more(site: Site) -> None:
    paths = site.series(8)
    site.store(paths[:7])
    site.pass_time(31)
    few = Rule("few", "lung", ("pacs",), (Condition("slices", Operator.AT_MOST, (7,)),))
    site.assembler(few).sweep()
    site.store(paths[7:])
    site.pass_time(31)
    site.assembler(few).sweep()
    (job,) = site.jobs()
    assert job.state == "canceled"
    assert "slices at most 7: no, 8" in site.one().no_job_reason


def test_our_own_results_are_kept_and_never_processed(site: Site) -> None:
    def ours(number: int, ds: Dataset) -> Dataset:
        ds.Manufacturer = "dicom-node"
        return ds

    site.store(site.series(8, ours))
    site.pass_time(31)
    site.assembler().sweep()
    assert site.jobs() == []
    assert site.events()[-1] == "own result came back"
    assert "result of this node" in site.one().no_job_reason
    with site.engine.connect() as tx:
        assert list_without_job(tx, limit=9) == [], "nobody waits for a result of a result"
        assert counts(tx, utc_now() - timedelta(days=1)).without_job == 0


def test_our_own_results_are_known_by_their_uids_when_a_pacs_changed_the_equipment(site: Site) -> None:
    paths = site.series(8)
    site.store(paths)
    site.pass_time(31)
    site.assembler().sweep()
    back = site.series(8)
    (job,) = site.jobs()
    with site.engine.begin() as tx:
        add_result(tx, job.id, str(dcmread(back[3]).SOPInstanceUID))
    site.store(back)
    site.pass_time(31)
    site.assembler().sweep()
    assert len(site.jobs()) == 1
    assert site.events()[-1] == "own result came back"


@pytest.mark.parametrize(
    ("asked", "ruled", "priority"),
    [
        ("STAT", Priority.ROUTINE, Priority.STAT),
        ("", Priority.STAT, Priority.STAT),
        ("LOW", Priority.ROUTINE, Priority.ROUTINE),
    ],
)
def test_stat_comes_from_the_order_or_from_the_rule(
    site: Site, asked: str, ruled: Priority, priority: Priority
) -> None:
    def change(number: int, ds: Dataset) -> Dataset:
        ds.RequestedProcedurePriority = asked
        return ds

    site.store(site.series(8, change))
    site.pass_time(31)
    site.assembler(Rule("chest", "lung", ("pacs",), (CT,), ruled)).sweep()
    assert site.jobs()[0].priority == priority


def test_rules_for_one_model_make_one_job_and_rules_for_two_models_two(site: Site) -> None:
    research = Rule("research", "lung", ("archive", "pacs"), (CT,), Priority.HIGH)
    liver = Rule("liver", "liver", ("pacs",), (CT,))
    site.store(site.series(8))
    site.pass_time(31)
    site.assembler(CHEST, research, liver).sweep()
    first, second = site.jobs()
    assert (first.model, second.model) == ("liver", "lung")
    assert (second.rule, second.destinations, second.priority) == ("chest", ["pacs", "archive"], Priority.HIGH)
    assert len(site.enqueued()) == 2


def test_rules_see_the_caller_and_attributes_that_only_the_file_has(site: Site) -> None:
    conditions = (
        Condition("calling_ae", Operator.ONE_OF, ("CT2",)),
        Condition("KVP", Operator.AT_LEAST, (110,)),
        Condition("PatientPosition", Operator.MATCHES, ("HF*",)),
        Condition("slice_spacing_mm", Operator.AT_MOST, (2.5,)),
        Condition("complete", Operator.ONE_OF, (True,)),
        Condition("ImageType", Operator.NOT, ("LOCALIZER",)),
    )
    site.store(site.series(8), by=sender("CT2", "b" * 36))
    site.pass_time(31)
    site.assembler(Rule("all", "lung", ("pacs",), conditions)).sweep()
    assert len(site.jobs()) == 1


class Unreliable:
    """A job engine whose database goes away between our rows and its own."""

    def __init__(self) -> None:
        self.working = False

    def job(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        if not self.working:
            raise RuntimeError("gone")


def test_what_cannot_be_enqueued_leaves_the_series_open_and_holds_up_no_other(
    both: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.store(both.series(8))
    both.store(both.series(3))
    both.pass_time(31)
    queue = Unreliable()
    assembler = both.assembler(enqueuer=queue)
    assert assembler.sweep() == 1  # the one that no rule wants
    assert both.jobs() == []
    with both.engine.begin() as tx:
        assert sorted(tx.scalars(select(t.series.c.state))) == ["complete", "receiving"]
        assert tx.scalar(select(func.count()).where(t.instance.c.revision.is_(None))) == 8
    assert "cannot be closed" in caplog.text
    queue.working = True
    assert assembler.sweep() == 0  # not again at once
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert assembler.sweep() == 1
    assert len(both.jobs()) == 1


class SetClock(HostClock):
    """A clock that is set when a test says so: the real one cannot be, for it is every other test's, too."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time() + self.by, time.monotonic)

    by = 0.0


def test_a_clock_that_is_set_forward_closes_no_series_too_early(both: Site) -> None:
    clock = SetClock()
    assembler = both.assembler(clock=clock)
    both.store(both.series())
    both.pass_time(3600)  # by the clock on the wall; nothing else has seen that hour
    clock.by += 3600
    assert assembler.sweep() == 0
    row = both.one()
    assert 10 < (row.settle_at - utc_now()).total_seconds() <= 30, "a quiet time from now on, and no more"
    assert assembler.sweep() == 0
    both.pass_time(31)
    assert assembler.sweep() == 1


def test_a_clock_that_is_set_back_keeps_no_series_waiting_for_hours(both: Site) -> None:
    both.store(both.series())
    both.pass_time(-3600)  # it came at a time that is still to come
    assert both.assembler().sweep() == 0
    assert (both.one().settle_at - utc_now()).total_seconds() <= 30
    both.pass_time(31)
    assert both.assembler().sweep() == 1


def test_two_assemblers_close_a_series_once(both: Site) -> None:
    for _ in range(4):
        both.store(both.series(6))
    both.pass_time(31)
    start, closed = Barrier(2), []

    def race() -> None:
        assembler = both.assembler()
        start.wait()
        closed.append(assembler.sweep())

    threads = [Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(closed) == 4
    assert len(both.jobs()) == len(both.enqueued()) == 4
    assert {job.series_revision for job in both.jobs()} == {1}


def test_the_loop_closes_series_until_it_is_stopped_and_cleans_the_spool(site: Site) -> None:
    site.store(site.series(8))
    orphan = site.spool.root / "instances" / "20200101-00" / "orphan.dcm"
    orphan.parent.mkdir()
    orphan.write_bytes(b"x")
    kept = site.spool.path(first_path(site))
    old = time.time() - 48 * 3600
    for path in (orphan, kept):
        os.utime(path, (old, old))
    site.pass_time(31)
    stop = Event()
    loop = Thread(target=site.assembler().run, args=(stop,))
    loop.start()
    end = time.monotonic() + 60
    while (not site.jobs() or orphan.exists()) and time.monotonic() < end:
        time.sleep(0.02)
    stop.set()
    loop.join(60)
    assert not loop.is_alive()
    assert len(site.jobs()) == 1
    assert not orphan.exists()
    assert kept.exists()


def quiet_s(reason: str) -> int:
    """Seconds in the reason for which a series was closed: at least those that the test let pass."""
    return int(reason.removeprefix("quiet for ").split()[0])


def announce(n: int) -> Change:
    def change(number: int, ds: Dataset) -> Dataset:
        ds.NumberOfSeriesRelatedInstances = n
        return ds

    return change


def first_path(site: Site) -> str:
    with site.engine.begin() as tx:
        return str(tx.scalars(select(t.instance.c.path)).first())


def add_result(tx: Connection, job: str, sop_instance_uid: str = "1.2.3.4") -> str:
    """A result of a job, waiting to be delivered."""
    tx.execute(
        insert(t.result).values(
            id="r",
            job_id=job,
            kind="seg",
            sop_class_uid="1.2",
            sop_instance_uid=sop_instance_uid,
            series_instance_uid="1.3",
            transfer_syntax_uid="1.4",
            path="results/x/seg.dcm",
            size=1,
            sha256="0" * 64,
            summary={},
            created_at=utc_now(),
        )
    )
    waiting = {"id": "d", "result_id": "r", "job_id": job, "destination": "pacs", "position": 0, "state": "waiting"}
    tx.execute(insert(t.delivery).values(**waiting, created_at=utc_now(), asked_at=utc_now()))
    return "r"
