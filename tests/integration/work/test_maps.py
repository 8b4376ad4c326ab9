"""A model that answers with an image, by the node's own path: job, worker, process, objects, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from ai.digest import bundle_digest, weights_digest
from dicom_node.cli import cli
from dicom_node.compare.compare import compare
from dicom_node.db.engine import transaction
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.domain import codes
from dicom_node.domain.model import MapCard, ModelCard, OutputKind
from dicom_node.explain import explain
from tests.ct import small_ct
from tests.integration.engine.rows import add_job
from tests.integration.work.test_worker import Bench, bench, database_url  # noqa: F401 - fixtures
from tests.unit.ai.imaging import adds
from tests.unit.models.test_draft import filled

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

OUTPUTS = (OutputKind.PM, OutputKind.SR)
DENOISED = MapCard("denoised", "Denoised CT", codes.ATTENUATION, codes.HOUNSFIELD_UNIT)


def card_of(bench: Bench, name: str, folder: Path) -> ModelCard:  # noqa: F811
    plain = replace(
        bench.card(), name=name, segments=(), maps=(DENOISED,), outputs=(OutputKind.PM, OutputKind.SR), bundle=folder
    )
    plain = replace(plain, outputs=OUTPUTS, timeout_s=600.0)
    return replace(plain, digest=bundle_digest(folder), weights_digest=weights_digest(folder))


def test_an_image_comes_back_by_a_worker_and_is_told_of(bench: Bench) -> None:  # noqa: F811
    card = card_of(bench, "adds", adds(bench.folder / "adds"))
    with bench.engine.begin() as tx:
        job = add_job(tx, bench.enqueuer, "adds", series=bench.series, version="1", destinations=["pacs"])
    worker = bench.worker(card)
    worker.work_on(job, "test")
    worker.close()

    with transaction(bench.engine) as tx:
        (told,), said = list_jobs(tx, JobFilter(limit=9)), str(explain(tx, job))
    assert told["state"] == "completed", said
    made = {result["kind"]: result for result in told["results"]}
    assert set(made) == {"pm", "sr"}
    assert "Denoised CT: mean" in said
    pm = dcmread(bench.spool.path(made["pm"]["path"]))
    values = np.frombuffer(pm.FloatPixelData, "<f4").reshape(pm.NumberOfFrames, pm.Rows, pm.Columns)
    sources = {ds.SOPInstanceUID: ds for ds in map(dcmread, (bench.folder / "ct").rglob("*.dcm"))}
    for item, frame in zip(pm.PerFrameFunctionalGroupsSequence, values, strict=True):
        source = sources[item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert item.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        np.testing.assert_array_equal(frame, source.pixel_array * source.RescaleSlope + source.RescaleIntercept + 100)

    (one,) = compare(bench.engine, bench.spool, "adds", "adds")
    (same,) = one.images
    assert (same.label, same.unit, same.mean_absolute, same.largest) == ("Denoised CT", "Hounsfield unit", 0.0, 0.0)
    assert same.correlation == pytest.approx(1.0)
    given = ["models", "compare", "adds", "adds", "--settings", str(bench.settings.file)]
    said = CliRunner().invoke(cli, given).output
    assert "Denoised CT in 1: 0 Hounsfield unit apart on average, 0 at most, correlation 1.0000 or more" in said


def test_a_bundle_is_added_drafted_and_run_on_a_folder(tmp_path: Path) -> None:
    from ai.understand import understand
    from dicom_node.models.draft import draft_card

    folder = adds(tmp_path / "models" / "adds")
    known = understand(folder)
    assert (known.obstacles, known.results[0]) == ((), "PM: the image denoised, on the grid of what it looked at")
    (folder / "card.toml").write_text(filled(draft_card(known, "adds")))
    small_ct(tmp_path / "ct", slices=8)
    asked = ["run", str(tmp_path / "ct"), "-o", str(tmp_path / "out"), "--device", "cpu"]

    done = CliRunner().invoke(cli, [*asked, "--model", "adds", "--models", str(tmp_path / "models")])

    assert done.exit_code == 0, done.output
    assert "  Denoised: mean " in done.stdout
    assert "nothing found" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pm.dcm", "sr.dcm"]
