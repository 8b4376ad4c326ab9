"""A job that works on several series is claimed with all of them, and holds the images of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import delete, select

from dicom_node.db import retention
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.db.inputs import NewInput, read_inputs, write_inputs
from dicom_node.db.jobs import claim_job
from dicom_node.db.retention import Kind
from dicom_node.domain.delivery import Sent
from dicom_node.errors import ConflictError
from tests.ct import small_ct
from tests.integration.operated import CARD, Operated, operated
from tests.integration.work.test_worker import name_channels
from tests.unit.ai.bundles import write_bundle

STUDY = generate_uid()


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        yield made


def of_study(number: int, ds: Dataset) -> Dataset:
    ds.StudyInstanceUID = STUDY
    return ds


def pair(node: Operated, tmp_path: Path) -> tuple[str, list[Path], list[Path]]:
    """Two series of a study, and the job of the first, which is to work on both."""
    plain, contrast = (small_ct(tmp_path / name, slices=8, rows=16, columns=16, change=of_study) for name in "ab")
    node.receive(contrast)
    with transaction(node.engine) as tx:
        tx.execute(delete(t.job))  # nobody wants it alone
        other = tx.execute(select(t.series.c.id)).scalar_one()
    node.receive(plain)
    (job,) = node.jobs()
    with transaction(node.engine) as tx:
        row = tx.execute(select(t.job)).one()
        uids = tuple(str(dcmread(path).SOPInstanceUID) for path in contrast)
        first = NewInput("plain", row.series_id, 1, tuple(row.slices))
        write_inputs(tx, row.id, [first, NewInput("contrast", other, 1, uids)])
    return str(job["id"]), plain, contrast


def test_a_job_is_claimed_with_every_series_in_its_role(node: Operated, tmp_path: Path) -> None:
    job_id, plain, contrast = pair(node, tmp_path)
    job = node.claim(job_id)
    assert [(one.role, one.slices) for one in job.inputs] == [("plain", 8), ("contrast", 8)]
    assert job.inputs[0].instances == job.instances
    for one, paths in zip(job.inputs, (plain, contrast), strict=True):
        first = dcmread(paths[0])
        assert (one.study_instance_uid, one.series_instance_uid) == (STUDY, first.SeriesInstanceUID)
        assert [instance.sop_instance_uid for instance in one.instances] == [dcmread(p).SOPInstanceUID for p in paths]


def test_another_run_has_the_same_inputs(node: Operated, tmp_path: Path) -> None:
    job_id, _, _ = pair(node, tmp_path)
    node.fail(job_id)
    again = node.retry(job_id)
    assert [one.role for one in node.claim(again).inputs] == ["plain", "contrast"]


def test_another_model_runs_on_several_series_only_where_it_takes_the_same(node: Operated, tmp_path: Path) -> None:
    job_id, _, contrast = pair(node, tmp_path)
    node.complete(job_id)
    models = {"lung": node.catalog.models["lung"]}
    for name, roles in (("both", ("contrast", "plain")), ("more", ("contrast", "plain", "late")), ("one", ())):
        bundle = write_bundle(tmp_path / name)
        name_channels(bundle, *roles or ("image",))
        models[name] = replace(CARD, name=name, bundle=bundle)
    node.catalog = replace(node.catalog, models=models)
    (alone,) = (job["id"] for job in another_series(node, tmp_path))

    new = node.rerun(job_id, "both")
    several = r"works on several series \(plain, contrast\), and one takes one: a rule of its own has to choose them"
    for job, model, said in (
        (job_id, "one", several),
        (job_id, "more", r"\(plain, contrast\), and more takes contrast, plain, late"),
        (alone, "both", "works on one series, and both takes contrast, plain"),
    ):
        with pytest.raises(ConflictError, match=said):
            node.rerun(job, model)
    assert node.rerun(alone, "one")
    with transaction(node.engine) as tx:
        inputs = {one.role: one for one in read_inputs(tx, new)}

    assert list(inputs) == ["plain", "contrast"]
    uids = [instance.sop_instance_uid for instance in inputs["contrast"].instances]
    assert uids == [dcmread(path).SOPInstanceUID for path in contrast]


def another_series(node: Operated, tmp_path: Path) -> list[dict[str, Any]]:
    """The job of one more series, in a study of its own."""
    paths = small_ct(tmp_path / "alone", slices=8, rows=16, columns=16)
    node.receive(paths)
    return node.jobs(series=str(dcmread(paths[0]).SeriesInstanceUID))


def test_a_job_whose_second_series_has_lost_an_image_fails_with_the_reason(node: Operated, tmp_path: Path) -> None:
    job_id, _, contrast = pair(node, tmp_path)
    with transaction(node.engine) as tx:
        tx.execute(delete(t.instance).where(t.instance.c.sop_instance_uid == str(dcmread(contrast[3]).SOPInstanceUID)))
    with transaction(node.engine) as tx:
        assert claim_job(tx, job_id, "host/work-0/1", {}, node.enqueuer) is None
    assert node.jobs()[0]["error"] == "1 of 16 instances are no longer stored."


def test_images_stay_while_a_job_of_another_series_needs_them(node: Operated, tmp_path: Path) -> None:
    job_id, _, _ = pair(node, tmp_path)
    with transaction(node.engine) as tx:
        assert [retention.due_images(tx, kind, None, 10) for kind in Kind] == [[], [], []]
    node.complete(job_id)
    node.send(Sent(0x0000), Sent(0x0000))
    with transaction(node.engine) as tx:
        assert len(retention.due_images(tx, Kind.DELIVERED, None, 10)) == 2
