"""Several volumes in one series, and copies: what the assembler finds in stored files, and which jobs come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_node import operate
from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db.engine import reading
from dicom_node.domain.rule import Rule
from dicom_node.errors import ConflictError
from dicom_node.explain import explain
from tests.ct import with_attributes
from tests.integration.test_assemble import CT, Site, card, open_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from open_site(tmp_path, f"sqlite:///{tmp_path / 'node.db'}")


def closed_with(site: Site, *paths: Path, **choices: dict[str, float | str]) -> None:
    """Store files and close their series, with a model and a rule for each choice."""
    if paths:
        site.store(paths)
    site.pass_time(3600)
    models = {name: replace(card(name), volume=choice) for name, choice in choices.items()}
    rules = tuple(Rule(name, name, (), (CT,)) for name in choices)
    assembler = Assembler(site.settings, Catalog(rules, models, {}), site.engine, site.enqueuer, site.spool)
    assert assembler.sweep() == 1


def both(site: Site, **second: object) -> list[Path]:
    """Two volumes in one series; the second differs by some attributes."""
    paths = site.series()
    again = []
    for path in paths:
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in second.items():
            setattr(ds, keyword, value)
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") + 1).astype("<u2").tobytes()
        again.append(path.with_suffix(".again.dcm"))
        ds.save_as(again[-1])
    return [*paths, *again]


def uids_of(paths: list[Path]) -> list[str]:
    return [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]


def test_each_model_gets_the_volume_that_its_card_takes(site: Site) -> None:
    paths = both(site, ConvolutionKernel="B70f")
    closed_with(site, *paths, sharp={"ConvolutionKernel": "B70f"}, soft={"ConvolutionKernel": "none"}, either={})
    either, sharp, soft = site.jobs()
    assert (soft.state, soft.slices) == ("scheduled", uids_of(paths[:8]))
    assert (sharp.state, sharp.slices) == ("scheduled", uids_of(paths[8:]))
    assert (either.state, either.slices, either.failure) == ("failed", [], "not eligible")
    assert either.error == (
        "Several volumes in one series: ConvolutionKernel none (8 slices); ConvolutionKernel B70f (8 slices). "
        "[volume] on the model's card takes one, as ConvolutionKernel = 'none'."
    )
    assert "series refused" not in site.events(), "it is no fault of the series"
    uid = site.one().series_instance_uid
    with site.engine.begin() as tx:
        (story,) = explain(tx, uid)
    lines = [line.text for line in story.lines]
    assert any("16 slices in 2 volumes: ConvolutionKernel none (8 slices); ConvolutionKernel B70f" in x for x in lines)
    assert any(line.endswith("of several volumes ConvolutionKernel B70f") for line in lines)


def test_a_refused_series_is_looked_at_again_once_the_card_says_which(site: Site) -> None:
    paths = both(site, EchoTime="40")
    closed_with(site, *paths, lung={})
    uid = site.one().series_instance_uid
    with site.engine.begin() as tx:
        (story,) = explain(tx, uid)
    assert story.answer.split(". Its rule")[0].endswith("start the node again and do `dicom-node route ACC0001`")
    with site.engine.begin() as tx:
        operate.route(tx, uid)
    closed_with(site, lung={"EchoTime": 40.0})
    refused, job = site.jobs()
    assert (refused.state, job.state, job.series_revision) == ("failed", "scheduled", 2)
    assert job.slices == uids_of(paths[8:])
    with site.engine.begin() as tx, pytest.raises(ConflictError, match="has a job already"):
        operate.route(tx, uid)


def test_another_model_takes_the_volume_that_its_own_card_names(site: Site) -> None:
    paths = both(site, EchoTime="40")
    choices: dict[str, dict[str, float | str]] = {"early": {"EchoTime": "none"}, "late": {"EchoTime": 40.0}}
    closed_with(site, *paths, early=choices["early"], either={})
    early, either = site.jobs()
    assert (early.slices, either.state) == (uids_of(paths[:8]), "failed")
    models = {name: replace(card(name), volume=volume) for name, volume in [*choices.items(), ("either", {})]}
    catalog = Catalog((), models, {})

    looked = operate.look(partial(reading, site.engine), early.id, site.spool)
    with site.engine.begin() as tx:
        other = operate.rerun(tx, early.id, "late", looked, catalog, 3, site.enqueuer)
        with pytest.raises(ConflictError, match="cannot run: Several volumes in one series: "):
            operate.rerun(tx, early.id, "either", looked, catalog, 3, site.enqueuer)
        with pytest.raises(ConflictError, match="cannot run: Several volumes in one series: "):
            operate.retry(tx, either.id, looked, catalog, 3, site.enqueuer)
        models["either"] = models["late"]  # its card says which since
        again = operate.retry(tx, either.id, looked, catalog, 3, site.enqueuer)

    slices = {job.id: job.slices for job in site.jobs()}
    assert slices[other] == slices[again] == uids_of(paths[8:])
    with site.engine.begin() as tx:
        (story,) = explain(tx, other)
    assert any("beside job" in x.text and "of several volumes EchoTime 40" in x.text for x in story.lines), story


def repeat(site: Site, change: Callable[[Dataset], None]) -> tuple[list[Path], Path]:
    """A series of which one slice comes again, changed, under another UID."""
    paths = site.series()
    ds = dcmread(paths[3])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    change(ds)
    ds.save_as(paths[3].with_suffix(".again.dcm"))
    return paths, paths[3].with_suffix(".again.dcm")


def test_a_copy_of_a_slice_is_set_aside_and_named(site: Site) -> None:
    paths, copy = repeat(site, lambda ds: setattr(ds, "InstanceNumber", 99))
    closed_with(site, *paths, copy, lung={})
    (job,) = site.jobs()
    assert (job.state, job.slices) == ("scheduled", uids_of(paths))
    why = "a copy of another slice: the same place and the same pixels under another UID"
    assert site.one().verdict["set_aside"] == [{"sop_instance_uid": uids_of([copy])[0], "reason": why}]
    assert site.detail("series complete")["set_aside"] == [f"1 x {why}"]


def one_more(ds: Dataset) -> None:
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") + 1).astype("<u2").tobytes()


def other_scale(ds: Dataset) -> None:
    ds.RescaleIntercept = "-1000"


def cut_off(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:100]


@pytest.mark.parametrize("change", [one_more, other_scale, cut_off])
def test_a_slice_with_other_values_at_the_same_place_is_no_copy(site: Site, change: Callable[[Dataset], None]) -> None:
    paths, other = repeat(site, change)
    closed_with(site, *paths, other, lung={})
    (job,) = site.jobs()
    assert job.state == "failed"
    assert "1 place with more than one slice" in job.error
    assert "no attribute tells them apart: repeats with other pixels" in job.error


def test_a_whole_series_that_came_twice_under_other_uids_is_one_volume(site: Site) -> None:
    paths = site.series()
    again = []
    for path in paths:
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        again.append(path.with_suffix(".again.dcm"))
        ds.save_as(again[-1])
    closed_with(site, *paths, *again, lung={})
    (job,) = site.jobs()
    assert job.state == "scheduled"
    assert len(job.slices) == 8
    assert len(site.one().verdict["set_aside"]) == 8


def test_volumes_of_a_series_that_is_not_whole_are_not_chosen_from(site: Site) -> None:
    paths = site.series(change=with_attributes(NumberOfSeriesRelatedInstances=20))
    closed_with(site, *paths, lung={"AcquisitionNumber": 1.0})
    (job,) = site.jobs()
    assert job.error == "8 of 20 instances arrived."
