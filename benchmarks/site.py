"""The pages, the REST API and QIDO-RS, as browsers and programs ask them; their time is that with the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from dicom_node.admin.credentials import TOKEN_PREFIX, digest, draw_secret
from dicom_node.admin.desk import Desk
from dicom_node.admin.site import build_site
from dicom_node.catalog import load_catalog
from dicom_node.db import accounts
from dicom_node.db.engine import transaction
from dicom_node.domain.people import Right, Role
from dicom_node.engine import Enqueuer
from dicom_node.rulebook import Rulebook
from dicom_node.settings import load_settings
from dicom_node.spool import Spool

Asked = Iterator[tuple[str, Callable[[Connection], object]]]
_SETTINGS = """\
[node]
ae_title = "AINODE"
[spool]
reserve_mib = 0
[database]
url = "{url}"
[destinations.pacs]
host = "127.0.0.1"
port = 9
ae_title = "PACS"
[destinations.old_pacs]
host = "127.0.0.1"
port = 9
ae_title = "OLD"
"""
_RULE = 'model = "{model}"\ndestinations = ["pacs"]\n[when]\nModality = "CT"\n'


class TimedDesk(Desk):
    """Adds up how long requests hold the database."""

    spent_s = 0.0

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot of the database."""
        started = time.perf_counter()
        with super().reading() as tx:
            yield tx
        TimedDesk.spent_s += time.perf_counter() - started


@contextmanager
def asked_site(url: str, engine: Engine, home: Path) -> Iterator[Callable[[int], Asked]]:
    """Serve a database; what is given lists the requests about the n-th study."""
    (home / "settings.toml").write_text(_SETTINGS.format(url=url))
    (home / "rules").mkdir()
    for model in ("chest_ct", "lung_ct"):
        (home / "rules" / f"{model}.toml").write_text(_RULE.format(model=model))
    settings = load_settings(home / "settings.toml", {})
    spool = Spool(settings.spool.path, 0)
    spool.prepare()
    enqueuer = Enqueuer(engine)
    site = build_site(
        TimedDesk(
            settings, Rulebook(settings, load_catalog(settings)), engine, enqueuer, spool, lambda destination: 0.0
        )
    )
    headers = {"authorization": f"Bearer {_token(engine)}"}
    with TestClient(site, "https://node.test", headers=headers) as client:
        yield lambda number: _requests(client, number)
    enqueuer.close()


def _token(engine: Engine) -> str:
    secret = TOKEN_PREFIX + draw_secret()
    with transaction(engine) as tx:
        account = accounts.find_account(tx, "asker") or accounts.add_account(tx, "asker", Role.ADMIN, "", actor="test")
        accounts.add_token(tx, account.id, "asking", digest(secret), list(Right), None, actor="test")
    return secret


def _requests(client: TestClient, number: int) -> Asked:
    study, series = f"1.2.840.99999.1.{number}", f"1.2.840.99999.2.{number}"
    mixed = f"{number * 2654435761 % 2**32:08x}-0000-5000"
    job, ours = f"{mixed}-4000-{number:012d}", f"{mixed}-3000-{number:012d}"
    week = {"since": _a_week_ago(client)}
    rare: dict[str, Any] = {"model": "old_mr"}
    for path, params in (
        *[("/", {}), ("/", {"show": "open"}), ("/", {"show": "failed"}), ("/", {"show": "completed"})],
        *[("/", {"model": "chest_ct"}), ("/", rare), ("/", {"show": "failed", **rare}), ("/queue", {})],
        *[("/find", {"q": f"A{number}"}), ("/find", {"q": f"P{number // 3}"}), ("/find", {"q": "nobody"})],
        *[(f"/studies/{study}", {}), (f"/series/{ours}", {}), (f"/jobs/{job}", {})],
        *[("/models", {}), ("/models/chest_ct", {}), ("/rules", {}), ("/destinations", {}), ("/system", {})],
        *[("/audit", {}), ("/audit", {"event": "queue paused"}), ("/audit", {"event": "job completed"})],
        *[("/audit", {"actor": "user otto"}), ("/audit", {"actor": "operator anna", "event": "queue paused"})],
        *[("/metrics", {}), ("/api/v1/system", {})],
        *[("/api/v1/jobs", params) for params in ({}, {"state": "failed"}, {"model": "chest_ct"}, rare, week)],
        *[("/api/v1/jobs", {"state": state, **rare}) for state in ("failed", "completed", "scheduled")],
        *[("/api/v1/jobs", {name: value}) for name, value in (("patient", f"P{number // 3}"), ("series", series))],
        *[("/api/v1/series", params) for params in ({}, {"state": "receiving"}, {"state": "complete"}, week)],
        *[("/api/v1/series", params) for params in ({"modality": "CT"}, {"modality": "MR"}, {"study": study})],
        *[("/api/v1/series", {"modality": "MR", "state": "complete"}), ("/api/v1/series", {"accession": f"A{number}"})],
        *[("/api/v1/results", params) for params in ({}, {"kind": "seg"}, {"kind": "pm"}, {"model": "chest_ct"}, rare)],
        *[("/api/v1/results", {"job": job}), ("/api/v1/results", {"study": study}), ("/api/v1/results", week)],
        *[("/api/v1/results", {"kind": "pm", "model": "lung_ct"})],
        *[("/api/v1/deliveries", params) for params in ({}, {"state": "failed"}, {"destination": "old_pacs"}, week)],
        *[("/api/v1/deliveries", {"state": state, "destination": "old_pacs"}) for state in ("failed", "delivered")],
        *[("/api/v1/deliveries", {"job": job}), ("/api/v1/destinations", {}), ("/api/v1/models", {})],
        *[("/api/v1/audit", params) for params in ({}, week, {"event": "queue paused"}, {"actor": "user otto"})],
        *[("/api/v1/audit", {"job": job}), ("/api/v1/audit", {"actor": "user otto", "event": "job completed"})],
        *[("/dicom-web/studies", {"limit": limit}) for limit in (20, 100)],
        *[("/dicom-web/studies", {name: value}) for name, value in _matched(number, study)],
        *[(f"/dicom-web/studies/{study}/series", {}), (f"/dicom-web/studies/{study}/series/{series}/instances", {})],
        *[("/dicom-web/series", {"limit": 20}), ("/dicom-web/instances", {"limit": 20})],
    ):
        told = "&".join(f"{name}={'a week ago' if name == 'since' else value}" for name, value in params.items())
        yield f"GET {path}{'?' if told else ''}{told}", _request(client, path, params)
    for list_ in ("jobs", "series", "results", "deliveries", "audit"):
        far = _far(client, list_)
        yield f"GET /api/v1/{list_}, 2000 rows further", _request(client, f"/api/v1/{list_}", {"cursor": far})


def _matched(number: int, study: str) -> Iterator[tuple[str, str]]:
    yield from (("StudyInstanceUID", study), ("PatientID", f"P{number // 3}"), ("AccessionNumber", f"A{number}"))
    yield from (("AccessionNumber", f"A{number}*"), ("ModalitiesInStudy", "CT"), ("ModalitiesInStudy", "MR"))
    yield from (("ModalitiesInStudy", "SEG"), ("StudyDate", "20241205"), ("StudyDate", "20240101-20240131"))


def _request(client: TestClient, path: str, params: dict[str, Any]) -> Callable[[Connection], object]:
    def ask(_: Connection) -> object:
        TimedDesk.spent_s = 0.0
        answer = client.get(path, params=params)
        assert answer.status_code in (200, 204), f"{path}: {answer.status_code} {answer.text[:300]}"
        return TimedDesk.spent_s

    return ask


def _far(client: TestClient, what: str) -> str:
    cursor = ""
    for _ in range(4):
        cursor = client.get(f"/api/v1/{what}", params={"limit": 500, "cursor": cursor}).json()["next"]
    return cursor


def _a_week_ago(client: TestClient) -> str:
    with client.app.state.desk.reading() as tx:  # type: ignore[attr-defined]
        found = tx.scalar(text("SELECT a_week_ago FROM v_clock"))
    told = str(found).replace(" ", "T")
    return told if "+" in told else f"{told[:26]}Z"
