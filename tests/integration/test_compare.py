"""A challenger in the shadow of a champion: both really run, are compared, and change places."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sqlalchemy import insert, select, update
from sqlalchemy.exc import OperationalError

from ai.digest import bundle_digest, weights_digest
from dicom_node.catalog import Catalog
from dicom_node.cli import cli
from dicom_node.compare.compare import COLOURS, compare
from dicom_node.compare.promote import promote
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction, utc_now
from dicom_node.errors import ConflictError, NotFoundError
from dicom_node.explain import explain
from dicom_node.settings import load_settings
from dicom_node.work.worker import Worker
from tests.integration.engine.rows import add_job, add_series
from tests.integration.work.test_worker import Bench, bench, database_url  # noqa: F401 - fixtures
from tests.unit.ai.bundles import write_bundle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def test_a_shadow_is_kept_compared_and_drawn(bench: Bench) -> None:  # noqa: F811
    champion = bench.card()
    folder = write_bundle(bench.folder / "next" / "sides", threshold=40.0)  # marks less
    named = replace(champion, name="sides_next", bundle=folder)
    challenger = replace(named, digest=bundle_digest(folder), weights_digest=weights_digest(folder))
    cards = {card.name: card for card in (champion, challenger)}
    with bench.engine.begin() as tx:
        jobs = [
            add_job(tx, bench.enqueuer, name, series=bench.series, destinations=destinations, version="1")
            for name, destinations in (("sides", ["pacs"]), ("sides_next", []))
        ]
    worker = Worker(bench.settings, Catalog((), cards, {}), bench.engine, bench.enqueuer, bench.spool)
    for job in jobs:
        worker.work_on(job, "test")
    worker.close()
    with transaction(bench.engine) as tx:
        assert not list(tx.execute(select(t.delivery).where(t.delivery.c.job_id == jobs[1])))
        assert "it is kept and not sent" in str(explain(tx, jobs[1]))

    (one,) = compare(bench.engine, bench.spool, "sides", "sides_next")
    assert one.agreement is not None
    assert {m.label for m in one.agreement.matches} == {"Left side", "Right side"}
    assert all(0.0 < m.dice < 1.0 for m in one.agreement.matches)
    for match in one.agreement.matches:  # all of the challenger's voxels are the champion's, too
        before, after = match.volumes_ml
        assert before is not None
        assert after is not None
        assert match.dice == pytest.approx(2 * after / (before + after), rel=1e-3)
    (same,) = compare(bench.engine, bench.spool, "sides", "sides")
    assert same.agreement is not None
    assert same.agreement.worst == 1.0

    out = bench.folder / "differences"
    given = ["models", "compare", "sides", "sides_next", "--settings", str(bench.settings.file), "-o", str(out)]
    said = CliRunner().invoke(cli, given)
    assert said.exit_code == 0, said.output
    assert "1 series on which sides (1) and sides_next (2) were run" in said.output
    (picture,) = out.glob("*.png")
    seen = {tuple(colour) for colour in np.asarray(Image.open(picture)).reshape(-1, 3)}
    assert set(COLOURS) <= seen
    told = json.loads(CliRunner().invoke(cli, [*given, "--json"]).stdout)
    assert told["series"][0]["worst"] == one.agreement.worst
    nothing = CliRunner().invoke(cli, ["models", "compare", "sides", "other", "--settings", str(bench.settings.file)])
    assert nothing.exit_code == 1
    assert "a rule with shadow = true" in nothing.output


def test_what_lies_on_different_images_is_not_compared(bench: Bench) -> None:  # noqa: F811
    """Two volumes of one series, and two series of one study."""
    with bench.engine.begin() as tx:
        half, rest = ((bench.series[0], bench.series[1][at]) for at in (slice(0, 5), slice(4, 8)))
        other, uids = add_series(tx)
        study = select(t.series.c.study_id).where(t.series.c.id == bench.series[0]).scalar_subquery()
        tx.execute(update(t.series).where(t.series.c.id == other).values(study_id=study))
        for model, series in (("early", half), ("late", rest), ("elsewhere", (other, uids))):
            job = add_job(tx, bench.enqueuer, model, series=series, version="1")
            tx.execute(update(t.job).where(t.job.c.id == job).values(state="completed"))
            made = {"kind": "sr", "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1"}
            file = {"path": job, "size": 1, "sha256": "0", "summary": {"segments": []}, "created_at": utc_now()}
            tx.execute(insert(t.result).values(id=job, job_id=job, sop_instance_uid=job[:32], **made, **file))

    (one,) = compare(bench.engine, bench.spool, "early", "late")
    assert one.agreement is None
    assert one.skipped == "not compared: they worked on different images of it, 5 and 4, 1 in both"
    for second, said in (
        ("late", f"series {bench.series[0]}: not compared: they worked on different images of it"),
        ("elsewhere", "in one study they ran on different series: what they marked lies on different images"),
    ):
        given = ["models", "compare", "early", second, "--settings", str(bench.settings.file)]
        told = CliRunner().invoke(cli, given)
        assert told.exit_code == 1
        assert said in told.output


def test_how_a_series_lies_on_another_is_not_compared_as_if_it_were_marked(bench: Bench) -> None:  # noqa: F811
    lies = {"segments": [], "registration": {"fixed": "a", "moving": "b", "mean_mm": 3.0, "largest_mm": 9.0}}
    with bench.engine.begin() as tx:
        for model in ("one", "other"):
            job = add_job(tx, bench.enqueuer, model, series=bench.series, version="1")
            tx.execute(update(t.job).where(t.job.c.id == job).values(state="completed"))
            made = {"kind": "sr", "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1"}
            file = {"path": job, "size": 1, "sha256": "0", "summary": lies, "created_at": utc_now()}
            tx.execute(insert(t.result).values(id=job, job_id=job, sop_instance_uid=job[:32], **made, **file))

    (one,) = compare(bench.engine, bench.spool, "one", "other")

    assert one.agreement is None
    assert one.skipped == "not compared: they say how one series lies on another, and only what is marked is compared"


def test_two_that_marked_nothing_are_not_called_in_agreement(bench: Bench) -> None:  # noqa: F811
    with bench.engine.begin() as tx:
        for model in ("one", "other"):
            job = add_job(tx, bench.enqueuer, model, series=bench.series, version="1")
            tx.execute(update(t.job).where(t.job.c.id == job).values(state="completed"))
            made = {"kind": "sr", "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1"}
            file = {"path": job, "size": 1, "sha256": "0", "summary": {"segments": []}, "created_at": utc_now()}
            tx.execute(insert(t.result).values(id=job, job_id=job, sop_instance_uid=job[:32], **made, **file))
    given = ["models", "compare", "one", "other", "--settings", str(bench.settings.file)]

    told = CliRunner().invoke(cli, given)

    assert told.exit_code == 0, told.output
    assert "in 1 of them neither marked anything; they are not counted below" in told.output
    assert json.loads(CliRunner().invoke(cli, [*given, "--json"]).stdout)["silent"] == 1


SETTINGS = """\
[destinations.pacs]
host = "127.0.0.1"
ae_title = "PACS"
"""
LIVE = """\
# who is sent
model = "lung_ct"     # the champion
destinations = ["pacs"]
[when]
Modality = "CT"
"""
SHADOW = """\
model = 'chest_ct'
shadow = true
[when]
Modality = "CT"
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_champion_and_challenger_change_places_in_the_rules(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    home = tmp_path / "home"
    (home / "rules").mkdir(parents=True)
    (home / "settings.toml").write_text(SETTINGS)
    live, shadow = home / "rules" / "live.toml", home / "rules" / "shadow.toml"
    live.write_text(LIVE)
    shadow.write_text(SHADOW)
    settings = load_settings(home / "settings.toml", {})
    changed = promote(bench.engine.begin, settings, "chest_ct", "lung_ct", actor="operator ann")
    assert changed == {"live": "chest_ct", "shadow": "lung_ct"}
    with bench.engine.begin() as tx:
        (event,) = tx.execute(select(t.audit_event).where(t.audit_event.c.event == "model promoted")).all()
    assert (event.actor, event.detail["model"], event.detail["instead of"]) == ("operator ann", "chest_ct", "lung_ct")
    assert live.read_text() == LIVE.replace("lung_ct", "chest_ct")
    assert shadow.read_text() == SHADOW.replace("chest_ct", "lung_ct")
    with pytest.raises(NotFoundError, match="no model chest_tc"):
        promote(bench.engine.begin, settings, "chest_tc", "chest_ct", actor="ann")
    with pytest.raises(ConflictError, match="no rule sends results of lung_ct"):
        promote(bench.engine.begin, settings, "chest_ct", "lung_ct", actor="ann")
    with pytest.raises(OperationalError):  # nothing was prepared there: no such table
        promote(open_engine("sqlite://").begin, settings, "lung_ct", "chest_ct", actor="ann")
    assert live.read_text() == LIVE.replace("lung_ct", "chest_ct"), "it cannot be told, so it is not done"
    assert sorted(path.name for path in (home / "rules").iterdir()) == ["live.toml", "shadow.toml"]
