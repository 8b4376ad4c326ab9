"""STOW-RS in: what is answered 200 is on the disk and in the database, and goes the same road as by C-STORE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import urllib3
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import select
from starlette.testclient import TestClient

from dicom_node.catalog import load_catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.deliver import stow
from dicom_node.domain.delivery import StowDestination
from dicom_node.domain.people import Right
from dicom_node.errors import DeliveryError
from dicom_node.explain import explain
from tests.ct import small_ct
from tests.integration.deliver.peer import delivery_of
from tests.integration.web.node import WebNode, make_database, serving, web_node
from tests.node import wait_for
from tests.peers.postgresql import PostgreSQL

BOUNDARY = "b0undary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
STUDIES = "/dicom-web/studies"
DUPLICATE, NO_ROOM, MISMATCH, UNREADABLE, SYNTAX = 0x0111, 0xA700, 0xA900, 0xC000, 0xC122


def body(*parts: bytes, kind: str = "application/dicom", end: bytes = b"--\r\n") -> bytes:
    whole = b"".join(f"\r\n--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode() + part for part in parts)
    return whole.removeprefix(b"\r\n") + f"\r\n--{BOUNDARY}".encode() + end


def changed(path: Path, **attributes: str) -> bytes:
    ds, out = dcmread(path), BytesIO()
    for keyword, value in attributes.items():
        setattr(ds.file_meta if keyword in ("TransferSyntaxUID",) else ds, keyword, value)
    ds.save_as(out, enforce_file_format=False)
    return out.getvalue()


def said(answer: Any) -> Dataset:
    assert answer.headers["content-type"] == "application/dicom+json", answer.text
    return Dataset.from_json(answer.json())


def stored(node: WebNode) -> dict[str, bytes]:
    with transaction(node.engine) as tx:
        rows = tx.execute(select(t.instance.c.sop_instance_uid, t.instance.c.path)).all()
    return {row.sop_instance_uid: node.spool.path(row.path).read_bytes() for row in rows}


def rows(node: WebNode, table: Any) -> Sequence[Any]:
    with transaction(node.engine) as tx:
        return tx.execute(select(table)).all()


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    return small_ct(tmp_path / "ct", slices=20, rows=32, columns=32)


@pytest.fixture
def gateway(node: WebNode) -> TestClient:
    """A program that may store, and nothing else."""
    return node.client(node.token("otto", Right.STORE))


def post(gateway: TestClient, content: bytes, path: str = STUDIES, kind: str = MULTIPART, **headers: str) -> Any:
    return gateway.post(path, content=content, headers={"content-type": kind, **headers})


def test_a_series_by_our_own_sender_goes_the_road_and_a_rule_can_ask_who_sent_it(
    node: WebNode, slices: list[Path]
) -> None:
    (node.settings.rules / "chest_ct.toml").write_text(
        'model = "lung_ct"\ndestinations = ["pacs"]\n[when]\ncalling_ae = "STOW"\naccount = "otto"\n'
    )
    node.catalog = load_catalog(node.settings)
    token = node.token("otto", Right.STORE)
    with serving(node) as address:
        web = StowDestination(name="node", url=f"{address}/dicom-web", timeout_s=60, token=token)
        for path in (*slices, slices[0]):
            assert stow.send(web, path, delivery_of(path, dcmread(path))).status == 0
        wait_for(lambda: all(row.ended_at for row in rows(node, t.association)), 60)
    kept = stored(node)
    assert len(kept) == 20
    for path in slices:
        ds = dcmread(path)
        again = dcmread(BytesIO(kept[ds.SOPInstanceUID]))
        assert again == ds
        assert again.file_meta.SourceApplicationEntityTitle == "STOW"
    node.sweep()
    (job,) = node.jobs()
    assert job["state"] == "scheduled"
    with transaction(node.engine) as tx:
        (story,) = explain(tx, str(dcmread(slices[0]).StudyInstanceUID))
    told = [line.text for line in story.lines if line.text.startswith("STOW-RS from otto (127.0.0.1): 1 instance")]
    assert len(told) == 20
    assert not any("aborted" in line for line in told)
    events = [
        row for row in rows(node, t.audit_event) if row.event in ("series started", "instances stored over the web")
    ]
    assert len(events) == 22
    assert all(row.actor.startswith("user otto") for row in events)


def test_each_instance_is_answered_for_itself(node: WebNode, gateway: TestClient, slices: list[Path]) -> None:
    first, second = (path.read_bytes() for path in slices[:2])
    (one,) = (dcmread(path) for path in slices[:1])
    answer = post(gateway, body(first))
    assert answer.status_code == 200
    ds = said(answer)
    assert [item.ReferencedSOPInstanceUID for item in ds.ReferencedSOPSequence] == [one.SOPInstanceUID]
    url = ds.ReferencedSOPSequence[0].RetrieveURL
    assert url == f"{ds.RetrieveURL}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
    looking = node.client(node.token("vera", Right.VIEW))
    assert looking.get(url.replace("https://node.test", ""), headers={"accept": "application/dicom"}).status_code == 200
    assert post(gateway, body(first)).status_code == 200, "stored before, with the same bytes"

    parts = {
        DUPLICATE: changed(slices[0], PatientName="OTHER"),
        MISMATCH: changed(slices[2], SOPInstanceUID=generate_uid()),
        SYNTAX: changed(slices[3], TransferSyntaxUID="1.2.3"),
        UNREADABLE: b"this is no DICOM file",
    }
    answer = post(gateway, body(second, *parts.values()))
    assert answer.status_code == 202
    ds = said(answer)
    assert len(ds.ReferencedSOPSequence) == 1
    assert sorted(item.FailureReason for item in ds.FailedSOPSequence) == [DUPLICATE, MISMATCH]
    assert sorted(item.FailureReason for item in ds.OtherFailuresSequence) == [UNREADABLE, SYNTAX]
    assert "other bytes" in answer.headers["warning"]
    assert len(stored(node)) == 2

    def refused() -> list[Any]:
        return [row for row in rows(node, t.audit_event) if row.event.startswith("instance refused")]

    wait_for(lambda: len(refused()) == 4, 60, lambda: f"{refused()}")  # written after the answer
    assert {row.actor for row in refused()} == {"user otto"}

    answer = post(gateway, body(*parts.values()))
    assert (answer.status_code, len(said(answer).FailedSOPSequence)) == (409, 2)
    assert len(stored(node)) == 2


def test_a_request_for_one_study_takes_nothing_of_another(
    node: WebNode, gateway: TestClient, slices: list[Path]
) -> None:
    mine, other = str(dcmread(slices[0]).StudyInstanceUID), generate_uid()
    foreign = changed(slices[1], StudyInstanceUID=other)
    answer = post(gateway, body(slices[0].read_bytes(), foreign), f"{STUDIES}/{mine}")
    assert answer.status_code == 202
    assert [item.FailureReason for item in said(answer).FailedSOPSequence] == [MISMATCH]
    assert post(gateway, body(foreign), f"{STUDIES}/{mine}").status_code == 409
    assert post(gateway, body(foreign), f"{STUDIES}/{other}").status_code == 200
    assert post(gateway, body(foreign), f"{STUDIES}/no-uid").status_code == 400


@pytest.mark.parametrize(
    ("kind", "damage", "status"),
    [
        ("multipart/related", lambda whole: whole, 400),
        ('multipart/related; type="application/dicom"; boundary="a\tb"', lambda whole: whole, 400),
        ('multipart/related; type="application/dicom+json"; boundary=b0undary', lambda whole: whole, 415),
        ("multipart/form-data; boundary=b0undary", lambda whole: whole, 415),
        ("application/dicom", lambda whole: whole, 415),
        ("", lambda whole: whole, 415),
        (MULTIPART, lambda whole: b"", 400),
        (MULTIPART, lambda whole: b"--b0undary--\r\n", 400),
        (MULTIPART, lambda whole: b"\0" * 1000, 400),
        (MULTIPART, lambda whole: whole.replace(b"b0undary", b"another"), 400),
        (MULTIPART, lambda whole: whole.replace(b"Content-Type", b"Content Type\0"), 400),
        (MULTIPART, lambda whole: whole.replace(b"Content-Type: ", b"X: " + b"x" * 100_000), 400),
        (MULTIPART, lambda whole: whole.replace(b"application/dicom", b"application/json"), 415),
        (MULTIPART, lambda whole: whole[:-20], 400),
        (MULTIPART, lambda whole: whole[:2000], 400),
        (MULTIPART, lambda whole: whole[:40], 400),
    ],
)
def test_what_is_no_such_multipart_is_refused_and_leaves_nothing(
    node: WebNode, gateway: TestClient, slices: list[Path], kind: str, damage: Any, status: int
) -> None:
    answer = post(gateway, damage(body(slices[0].read_bytes())), kind=kind)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert stored(node) == {}
    assert [path for path in node.spool.root.rglob("*") if path.suffix in (".part", ".dcm")] == []


def test_what_came_before_a_break_is_stored_and_said(node: WebNode, gateway: TestClient, slices: list[Path]) -> None:
    whole = body(*(path.read_bytes() for path in slices[:3]))
    answer = post(gateway, whole[:-500])
    assert (answer.status_code, len(stored(node))) == (400, 2)
    assert "2 instances that came before are stored" in answer.json()["detail"]
    wait_for(lambda: rows(node, t.association)[0].ended_at, 60)
    assert rows(node, t.association)[0].end_reason.startswith("aborted"), "so the rest is waited for"
    assert post(gateway, whole).status_code == 200
    assert len(stored(node)) == 3
    assert post(gateway, whole, accept="application/dicom+xml").status_code == 406


@pytest.fixture
def strict(tmp_path: Path, database: Path) -> Iterator[WebNode]:
    """A node that takes two instances of 1 MiB in a request of 2."""
    home = tmp_path / "strict"
    home.mkdir()
    copyfile(database, home / "node.db")
    limits = "[web]\nstore_instances = 2\nstore_instance_mib = 1\nstore_request_mib = 2\n"
    with web_node(home, more=limits) as made:
        yield made


def test_more_than_the_settings_allow_is_a_413(strict: WebNode, slices: list[Path]) -> None:
    gateway = strict.client(strict.token("otto", Right.STORE))
    one = slices[0].read_bytes()
    for content in (
        body(*(path.read_bytes() for path in slices[:3])),
        body(one + bytes(1 << 20)),
        body(bytes(3 << 20)),
    ):
        assert post(gateway, content).status_code == 413
    assert len(stored(strict)) == 2, "of the first request; the third instance was too many"
    pieces = (body(one + bytes(1 << 19)) for _ in range(5))
    answer = gateway.post(STUDIES, content=pieces, headers={"content-type": MULTIPART})
    assert answer.status_code == 413, "nor when nothing says how long it will be"


def test_only_those_may_store_who_have_the_right(node: WebNode, slices: list[Path]) -> None:
    content = body(slices[0].read_bytes())
    assert post(node.client(), content).status_code == 401
    assert post(node.client(node.token("vera", Right.VIEW, Right.STORE)), content).status_code == 403
    assert post(node.signed_in("otto"), content).status_code == 403, "a page of ours has no such form"
    assert stored(node) == {}
    assert post(node.client(node.token("ann", Right.STORE)), content).status_code == 200


def test_a_full_disk_is_a_503_with_the_reason_of_c_store(
    node: WebNode, gateway: TestClient, slices: list[Path]
) -> None:
    content = body(*(path.read_bytes() for path in slices[:3]))
    node.spool.reserve_mib = 10**9
    answer = post(gateway, content)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert [item.FailureReason for item in said(answer).FailedSOPSequence] == [NO_ROOM] * 3
    node.spool.reserve_mib = 0
    assert post(gateway, content).status_code == 200
    assert len(stored(node)) == 3


def test_a_database_that_goes_away_in_mid_request_is_a_503_and_nothing_is_lost(
    tmp_path: Path, postgresql_url: str, postgresql: PostgreSQL
) -> None:
    make_database(postgresql_url)
    slices = small_ct(tmp_path / "large", slices=3, rows=640, columns=640)
    content = body(*(path.read_bytes() for path in slices))
    with web_node(tmp_path / "node", postgresql_url) as node, serving(node) as address:
        token = node.token("otto", Right.STORE)
        headers = {"authorization": f"Bearer {token}", "content-type": MULTIPART}

        def pieces() -> Iterator[bytes]:
            yield content[:800_000]  # past the gate, and so much of an instance that it is being written
            wait_for(lambda: any((node.spool.root / "incoming").iterdir()), 60)
            postgresql.pause()
            yield content[800_000:]

        with urllib3.PoolManager(retries=False) as pool:
            try:
                answer = pool.request("POST", address + STUDIES, headers=headers, body=pieces())
                assert answer.status == 503
                failed = Dataset.from_json(answer.json()).FailedSOPSequence
                assert [item.FailureReason for item in failed] == [NO_ROOM] * 3
                web = StowDestination(name="node", url=f"{address}/dicom-web", timeout_s=60, token=token)
                with pytest.raises(DeliveryError) as refused:
                    stow.send(web, slices[0], delivery_of(slices[0], dcmread(slices[0])))
                assert refused.value.retry
            finally:
                postgresql.resume()
            assert pool.request("POST", address + STUDIES, headers=headers, body=content).status == 200
        assert len(stored(node)) == 3
        # what could not be written down meanwhile has been kept in mind
        wait_for(lambda: len([e for e in rows(node, t.audit_event) if e.event == "instance refused"]) == 3, 60)
