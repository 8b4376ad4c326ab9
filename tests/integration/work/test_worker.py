"""A worker with a real model process: whatever the model does costs an attempt, never the worker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, select, update

from ai.digest import bundle_digest, weights_digest
from dicom_node import engine as job_engine
from dicom_node.catalog import Catalog
from dicom_node.cli.jobs import _outcome
from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, utc_now
from dicom_node.db.inputs import NewInput, write_inputs
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.db.overview import Memory, usual_memory
from dicom_node.db.profiles import write_profile
from dicom_node.digest import digest_of
from dicom_node.domain.audit import Event as AuditKind
from dicom_node.domain.choice import instead_of
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.finding import Code
from dicom_node.domain.model import Accepts, DetectionCard, ModelCard, OutputKind, SegmentCard
from dicom_node.domain.profile import EXPLICIT, OFFERS, Profile
from dicom_node.domain.uids import AETitle
from dicom_node.engine import Enqueuer
from dicom_node.explain import explain
from dicom_node.explain.events import sentence
from dicom_node.settings import Settings, load_settings
from dicom_node.spool import Spool
from dicom_node.work import worker as worker_module
from dicom_node.work.worker import Worker
from tests.ct import small_ct
from tests.integration.engine.rows import add_job, add_series, attempts, count, job_row, uid
from tests.peers.postgresql import PostgreSQL
from tests.unit.ai.bundles import SIDES, TO_RAS, write_bundle, write_detecting_bundle

ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
BLOBS = DetectionCard("blob", "Blob", "Blob detection", ABNORMAL, Code("52988006", "SCT", "Blob"))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

HANGS = SIDES.replace("        bright", "        import time; time.sleep(3600)\n        bright")
DIES = SIDES.replace("        bright", "        import os; os._exit(9)\n        bright")
SAYS_NAN = SIDES.replace("return torch.cat(", "print('what went wrong')\n        return float('nan') * torch.cat(")

# Runs out of memory where it is shown more than so many windows at once.
GREEDY = SIDES.replace(
    "        bright", "        if image.shape[0] > MOST:\n            raise torch.OutOfMemoryError\n        bright", 1
)

SETTINGS = """\
[database]
url = "{url}"
[work]
max_attempts = 2
retry_first_s = 0.2
device = "cpu"
[engine]
poll_s = 0.1
beat_s = 0.3
dead_after_s = 200  # a worker of this process that is declared dead would end the tests with it
[destinations.pacs]
host = "127.0.0.1"
ae_title = "PACS"
"""


@dataclass
class Bench:
    """A worker's surroundings: settings, tables, spool, and a series to work on."""

    folder: Path
    settings: Settings
    engine: Engine
    enqueuer: Enqueuer
    spool: Spool
    series: tuple[str, list[str]]

    def card(self, network: str = SIDES, **changes: Any) -> ModelCard:
        """Write a bundle with this network; give its card."""
        bundle = write_bundle(self.folder / "sides", network=network, threshold=-300.0)
        body = Code("91723000", "SCT", "Anatomical Structure"), Code("85756007", "SCT", "Tissue")
        sides = ("left side", "right side")
        fields: dict[str, Any] = {
            "name": "sides",
            "version": "1",
            "title": "Sides",
            "manufacturer": "test",
            "summary": "Marks what is bright.",
            "training": "not trained; not for clinical use",
            "bundle": bundle,
            "digest": bundle_digest(bundle),
            "weights_digest": weights_digest(bundle),
            "timeout_s": 60.0,
            "accepts": Accepts(("CT",), 2, 5.0),
            "segments": tuple(SegmentCard(side, side.capitalize(), *body) for side in sides),
        }
        return ModelCard(**{**fields, **changes})

    def worker(self, card: ModelCard) -> Worker:
        return Worker(self.settings, Catalog((), {card.name: card}, {}), self.engine, self.enqueuer, self.spool)

    def job(self, *, max_attempts: int = 2, version: str = "1") -> str:
        with self.engine.begin() as tx:
            return add_job(
                tx,
                self.enqueuer,
                "sides",
                series=self.series,
                max_attempts=max_attempts,
                version=version,
                destinations=["pacs"],
            )

    def outcomes(self, job_id: str) -> list[str]:
        return [attempt.outcome for attempt in attempts(self.engine, job_id)]


BOTH = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite where the subject is the model, and both where it is the database."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'node.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS.format(url=database_url))
    settings = load_settings(file, {})
    migrate.upgrade(settings.database.url)
    job_engine.migrate(settings.database.url)
    engine = open_engine(settings.database.url)
    spool = Spool(settings.spool.path, 0)
    spool.prepare()
    paths = small_ct(tmp_path / "ct", slices=8)
    stored = [spool.write("instances/00", path.name, path.read_bytes())[0] for path in paths]
    with engine.begin() as tx:
        series = add_series(tx, stored)
        for relative, path in zip(stored, paths, strict=True):
            adopt(tx, relative, path)
        uids = list(tx.execute(select(t.instance.c.sop_instance_uid).order_by(t.instance.c.path)).scalars())
    enqueuer = Enqueuer(engine)
    yield Bench(tmp_path, settings, engine, enqueuer, spool, (series[0], uids))
    enqueuer.close()
    engine.dispose()


def adopt(tx: Any, relative: str, path: Path) -> None:
    """Give an instance's row what the file says, as receiving it would have."""
    ds = dcmread(path, stop_before_pixels=True)
    # preamble, "DICM", the element that holds the length, and as many bytes as it says (PS3.10 7.1)
    data_set = path.read_bytes()[128 + 4 + 12 + ds.file_meta.FileMetaInformationGroupLength :]
    values = {
        "sop_instance_uid": str(ds.SOPInstanceUID),
        "digest": digest_of(data_set),
        "size": path.stat().st_size,
    }
    tx.execute(update(t.instance).where(t.instance.c.path == relative).values(**values))


def until(met: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@BOTH
def test_a_job_ends_with_its_results_and_deliveries_in_one_transaction(bench: Bench) -> None:
    job_id = bench.job()
    worker = bench.worker(bench.card())

    worker.work_on(job_id, "test")
    worker.close()

    job = job_row(bench.engine, job_id)
    assert (job.state, job.error) == ("completed", None)
    with bench.engine.begin() as tx:
        results = tx.execute(select(t.result).order_by(t.result.c.kind)).all()
    assert [result.kind for result in results] == ["seg", "sr"]
    assert all(bench.spool.path(result.path).stat().st_size == result.size for result in results)
    assert count(bench.engine, t.delivery, t.delivery.c.state == "waiting") == 2
    held = attempts(bench.engine, job_id)[0].memory_mib
    assert held > 100, "torch alone is more"
    with bench.engine.begin() as tx:
        assert usual_memory(tx, "sides", worker._cards["sides"].digest) == Memory(held, 0)
        assert usual_memory(tx, "sides", "of other bytes") is None
    steps = attempts(bench.engine, job_id)[0].steps_s
    assert set(steps) >= {"read", "load model", "preprocess", "infer", "measure", "write SEG", "write SR"}


@pytest.mark.parametrize("in_one_frame", [True, False])
def test_a_job_on_several_series_lays_them_together_where_they_share_a_frame_of_reference(
    bench: Bench, tmp_path: Path, in_one_frame: bool
) -> None:
    with bench.engine.begin() as tx:
        first = tx.execute(select(t.instance.c.path).where(t.instance.c.series_id == bench.series[0])).scalars().first()
    frame = dcmread(bench.spool.path(str(first))).FrameOfReferenceUID if in_one_frame else uid()

    def other(number: int, ds: Dataset) -> Dataset:
        ds.FrameOfReferenceUID = frame
        return ds

    job_id = bench.job()
    card = bench.card(SIDES.replace("        bright", "        image = image[:, 1:]\n        bright", 1))
    name_channels(card.bundle, "plain", "contrast")
    card = replace(card, digest=bundle_digest(card.bundle))
    paths = small_ct(tmp_path / "other", slices=12, spacing_mm=(2.0, 2.0, 2.0), change=other)
    stored = [bench.spool.write("instances/01", path.name, path.read_bytes())[0] for path in paths]
    with bench.engine.begin() as tx:
        second, _ = add_series(tx, stored)
        for relative, path in zip(stored, paths, strict=True):
            adopt(tx, relative, path)
        uids = tuple(str(dcmread(path).SOPInstanceUID) for path in paths)
        inputs = [NewInput("plain", bench.series[0], 1, tuple(bench.series[1])), NewInput("contrast", second, 1, uids)]
        write_inputs(tx, job_id, inputs)

    worker = bench.worker(card)
    worker.work_on(job_id, "test")
    worker.close()

    job = job_row(bench.engine, job_id)
    if in_one_frame:
        assert (job.state, job.error) == ("completed", None)
    else:
        assert job.state == "failed"
        assert "contrast is not in the frame of reference of plain" in job.error


def name_channels(bundle: Path, *names: str) -> None:
    file = bundle / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    channels = {str(number): name for number, name in enumerate(names)}
    metadata["network_data_format"]["inputs"] = {"image": {"num_channels": len(names), "channel_def": channels}}
    file.write_text(json.dumps(metadata))


def test_a_destination_that_refuses_segmentations_gets_what_stands_in_for_them_and_the_story_says_so(
    bench: Bench,
) -> None:
    job_id = bench.job()
    card = bench.card()
    pacs = DimseDestination(name="pacs", host="pacs", port=104, ae_title=AETitle("P"), calling_ae=AETitle("N"))
    catalog = Catalog((), {card.name: card}, {"pacs": pacs})
    worker = Worker(bench.settings, catalog, bench.engine, bench.enqueuer, bench.spool)
    accepted = {o.sop_class_uid: () if OutputKind.SEG in o.kinds else (EXPLICIT,) for o in OFFERS}
    with bench.engine.begin() as tx:
        write_profile(tx, "pacs", Profile(pacs.where, datetime(2026, 11, 27, tzinfo=UTC), accepted, (), "", ""))

    worker.work_on(job_id, "test")
    worker.close()

    with bench.engine.begin() as tx:
        sent = select(t.result.c.kind).join(t.delivery, t.delivery.c.result_id == t.result.c.id)
        kinds = tx.execute(sent.order_by(t.delivery.c.position)).scalars().all()
        [told] = tx.execute(select(t.audit_event).where(t.audit_event.c.event == AuditKind.OBJECTS_CHOSEN)).all()
    assert kinds == ["rtstruct", "overlay", "sr"]
    assert sentence(told).splitlines() == [
        "pacs gets RTSTRUCT, OVERLAY, SR, as it said on 2026-11-27",
        "it does not take SEG: RTSTRUCT and OVERLAY instead",
    ]


def test_a_map_of_what_spoke_for_detections_goes_as_the_page_alone_where_maps_are_refused(bench: Bench) -> None:
    bundle = write_detecting_bundle(bench.folder / "finder", preprocessing=[TO_RAS], second_score=0.8)
    outputs = (OutputKind.PM, OutputKind.SR)
    card = bench.card(bundle=bundle, digest=bundle_digest(bundle), detections=(BLOBS,), outputs=outputs)
    pacs = DimseDestination(name="pacs", host="pacs", port=104, ae_title=AETitle("P"), calling_ae=AETitle("N"))
    catalog = Catalog((), {card.name: card}, {"pacs": pacs})
    worker = Worker(bench.settings, catalog, bench.engine, bench.enqueuer, bench.spool)
    accepted = {o.sop_class_uid: () if OutputKind.PM in o.kinds else (EXPLICIT,) for o in OFFERS}
    said = Profile(pacs.where, datetime(2026, 11, 27, tzinfo=UTC), accepted, (), "", "")
    with bench.engine.begin() as tx:
        write_profile(tx, "pacs", said)

    worker.work_on(bench.job(), "test")
    worker.close()

    with bench.engine.begin() as tx:
        sent = select(t.result.c.kind).join(t.delivery, t.delivery.c.result_id == t.result.c.id)
        kinds = tx.execute(sent.order_by(t.delivery.c.position)).scalars().all()
        [told] = tx.execute(select(t.audit_event).where(t.audit_event.c.event == AuditKind.OBJECTS_CHOSEN)).all()
    assert kinds == ["sc", "sr"]
    assert sentence(told).splitlines()[1] == "it does not take PM: SC instead"
    (maps,) = said.leaves
    assert instead_of(maps, said).endswith(", of images that a model made only; picture (SC)")


@pytest.mark.parametrize(
    ("accepts", "outcome"),
    [
        (Accepts(max_slice_spacing_mm=3.0), "2 blobs"),
        (Accepts(max_slice_spacing_mm=1.0), "Blob detection not run: slice spacing 2.5 mm, made for up to 1 mm"),
    ],
)
def test_a_part_that_the_volume_is_not_fit_for_is_left_out_and_said(
    bench: Bench, accepts: Accepts, outcome: str
) -> None:
    bundle = write_detecting_bundle(bench.folder / "finder", preprocessing=[TO_RAS], second_score=0.8)
    card = bench.card(bundle=bundle, digest=bundle_digest(bundle), detections=(replace(BLOBS, accepts=accepts),))
    job_id = bench.job()
    worker = bench.worker(card)

    worker.work_on(job_id, "test")
    worker.close()

    with bench.engine.begin() as tx:
        (job,) = list_jobs(tx, JobFilter())
        (told,) = explain(tx, job_id)
    assert (job["state"], job["error"]) == ("completed", None)
    assert _outcome(job["results"]) == outcome
    assert any(outcome in line.text for line in told.lines), told


@BOTH
def test_a_canceled_job_kills_its_model(bench: Bench) -> None:
    job_id = bench.job()
    worker = bench.worker(bench.card(HANGS))
    working = Thread(target=worker.work_on, args=(job_id, "test"))
    working.start()
    until(lambda: worker._models.pids)
    (pid,) = worker._models.pids
    time.sleep(1)

    with bench.engine.begin() as tx:
        tx.execute(update(t.job).where(t.job.c.id == job_id).values(state="canceled", finished_at=utc_now()))
    working.join(60)

    assert not working.is_alive()
    assert not alive(pid)
    assert bench.outcomes(job_id) == ["canceled"]
    assert job_row(bench.engine, job_id).state == "canceled"
    worker.close()


def test_a_model_that_dies_costs_an_attempt_and_its_last_one_the_job(bench: Bench) -> None:
    job_id = bench.job()
    worker = bench.worker(bench.card(DIES))

    worker.work_on(job_id, "test")
    assert job_row(bench.engine, job_id).state == "scheduled"
    worker.work_on(job_id, "test")
    worker.close()

    job = job_row(bench.engine, job_id)
    assert job.state == "failed"
    assert "sides" in job.error
    assert bench.outcomes(job_id) == ["retry", "failed"]


@pytest.mark.parametrize(("most", "ends"), [("1", "completed"), ("0", "failed")])
def test_what_was_tried_when_memory_ran_out_is_kept_with_the_attempt_and_told(
    most: str, ends: str, bench: Bench
) -> None:
    job_id = bench.job(max_attempts=1)
    card = bench.card(GREEDY.replace("MOST", most))
    file = card.bundle / "configs" / "inference.json"
    windows = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 4], "sw_batch_size": 4}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inferer": windows}))
    worker = bench.worker(replace(card, digest=bundle_digest(card.bundle)))

    worker.work_on(job_id, "test")
    worker.close()

    assert job_row(bench.engine, job_id).state == ends
    (attempt,) = attempts(bench.engine, job_id)
    rungs = ["all at once"] if most == "1" else ["all at once", "one window at a time", "stitched on the CPU"]
    tried = [f"out of memory, {rung}" for rung in rungs]
    assert [step for step in attempt.steps_s if step.startswith("out of")] == tried
    with bench.engine.begin() as tx:
        (told,) = explain(tx, job_id)
    (line,) = [line.text for line in told.lines if f"attempt 1 of 1 {ends}" in line.text]
    assert line.splitlines()[1:] == tried, line
    if ends == "failed":
        assert "The model sides asked for more memory than it may have." in line.splitlines()[0]


def test_a_model_that_hangs_is_killed_when_its_time_is_over(bench: Bench) -> None:
    job_id = bench.job(max_attempts=1)
    worker = bench.worker(bench.card(HANGS, timeout_s=6.0))

    worker.work_on(job_id, "test")
    worker.close()

    assert "6 s" in job_row(bench.engine, job_id).error


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accepts": Accepts(("MR",))}, "made for MR; the series is CT"),
        ({"accepts": Accepts(("CT",), 20)}, "was not run: 8 slices, made for at least 20."),
        ({"accepts": Accepts(("CT",), 2, 1.0)}, "slice spacing 2.5 mm, made for up to 1 mm"),
        ({"version": "2"}, "this node has version 2"),
        ({"digest": "0" * 64}, "changed on disk"),
    ],
)
def test_what_no_retry_can_help_fails_at_the_first_attempt(bench: Bench, changes: dict[str, Any], said: str) -> None:
    job_id = bench.job()
    worker = bench.worker(bench.card(**changes))

    worker.work_on(job_id, "test")
    worker.close()

    job = job_row(bench.engine, job_id)
    assert (job.state, job.attempt) == ("failed", 1)
    assert said in job.error


def test_an_answer_that_is_no_number_fails_at_the_first_attempt(bench: Bench) -> None:
    job_id = bench.job()
    worker = bench.worker(bench.card(SAYS_NAN))

    worker.work_on(job_id, "test")
    worker.close()

    assert bench.outcomes(job_id) == ["failed"]
    (attempt,) = attempts(bench.engine, job_id)
    assert attempt.printed == "what went wrong"
    assert {"read", "preprocess", "infer"} <= set(attempt.steps_s), "as far as it came"
    with bench.engine.begin() as tx:
        (told,) = explain(tx, job_id)
    assert "the model printed: what went wrong" in str(told)


def test_a_missing_file_is_tried_again(bench: Bench) -> None:
    job_id = bench.job()
    with bench.engine.begin() as tx:
        bench.spool.delete(tx.execute(select(t.instance.c.path).limit(1)).scalar_one())
    worker = bench.worker(bench.card())

    worker.work_on(job_id, "test")

    assert bench.outcomes(job_id) == ["retry"]


def test_what_nobody_foresaw_costs_one_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object) -> None:
        raise RuntimeError("secret name")

    monkeypatch.setattr(worker_module, "run_attempt", surprise)
    job_id = bench.job()

    bench.worker(bench.card()).work_on(job_id, "test")

    attempt = attempts(bench.engine, job_id)[0]
    assert attempt.outcome == "retry"
    assert attempt.error == "Unexpected RuntimeError; the log has the details."


@BOTH
def test_a_worker_that_stops_gives_its_job_back_uncounted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "DRAIN_S", 0.5)
    job_id = bench.job(max_attempts=1)
    worker = bench.worker(bench.card(HANGS))
    stop = Event()
    running = Thread(target=worker.run, args=(stop,))
    running.start()
    until(lambda: worker._models.pids)

    stop.set()
    running.join(60)

    assert not running.is_alive()
    job = job_row(bench.engine, job_id)
    assert (job.state, job.attempt, job.max_attempts) == ("scheduled", 1, 2)
    assert bench.outcomes(job_id) == ["interrupted"]
