"""A result made again from its provenance: the same bytes, or the reason why not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import delete

from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.errors import ConflictError, NotFoundError
from dicom_node.work.reproduce import reproduce
from tests.integration.work.test_worker import Bench, bench, database_url  # noqa: F401 - fixtures

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def test_every_byte_is_made_again_and_what_differs_is_named(bench: Bench) -> None:  # noqa: F811
    card = bench.card()
    waiting, job = bench.job(version="2"), bench.job()
    worker = bench.worker(card)
    worker.work_on(job, "test")
    worker.close()
    before = sorted(bench.spool.root.rglob("*"))
    around = bench.engine, bench.settings, Catalog((), {card.name: card}, {}), bench.spool
    again = bench.folder / "again"

    remade = reproduce(*around, job[:8], again)

    assert [(one.name, one.is_same) for one in sorted(remade, key=lambda one: one.name)] == [
        ("seg", True),
        ("sr", True),
    ]
    for one in remade:
        assert one.file is not None
        assert one.file.read_bytes() == bench.spool.path(f"results/{job}/{one.name}.dcm").read_bytes()
    assert sorted(bench.spool.root.rglob("*")) == before
    assert not list(again.rglob("instances/*"))

    node = bench.settings.node.model_copy(update={"institution": "Another Hospital"})
    renamed = bench.settings.model_copy(update={"node": node})
    seg, sr = sorted(reproduce(bench.engine, renamed, *around[2:], job, again), key=lambda one: one.name)
    assert (seg.is_same, sr.is_same) == (False, False)
    assert "InstitutionName" in seg.differs_in
    assert "PixelData" not in seg.differs_in

    other = replace(card, digest="0" * 64)
    with pytest.raises(ConflictError, match="here it is 000000000000: put that bundle back"):
        reproduce(*around[:2], Catalog((), {card.name: other}, {}), bench.spool, job, again)
    with pytest.raises(ConflictError, match="is scheduled: it made nothing"):
        reproduce(*around, waiting, again)
    with pytest.raises(NotFoundError):
        reproduce(*around, "ffffffff", again)
    with bench.engine.begin() as tx:
        tx.execute(delete(t.instance).where(t.instance.c.path.like("%000.dcm") | t.instance.c.path.like("%001.dcm")))
    with pytest.raises(ConflictError, match="of the 8 images of job"):
        reproduce(*around, job, again)
