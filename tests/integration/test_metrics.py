"""Metrics and health over HTTP, from a node that works, one that does not, and one whose database is away."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.db.nodes import register_node
from dicom_node.domain.delivery import Sent
from dicom_node.errors import DeliveryError
from dicom_node.metrics import tail
from dicom_node.metrics.gpu import parse
from dicom_node.metrics.server import MetricsServer
from tests.ct import small_ct
from tests.integration.operated import Operated, operated
from tests.node import free_port
from tests.peers.postgresql import PostgreSQL

DEPLOY = Path(__file__).parents[2] / "deploy"


class Asked:
    """A node and its metrics server."""

    def __init__(self, node: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tail, "BEHIND", timedelta(0))
        receive = node.settings.receive.model_copy(update={"port": free_port()})
        self.settings = node.settings.model_copy(update={"receive": receive})
        self.node = node
        self._server = MetricsServer(self.settings, node.engine, node.spool, "127.0.0.1", 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._server.run, args=(self._stop,))
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._server.port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Name and label values, sorted -> value."""
        status, text = self.get("/metrics")
        assert status == 200
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(s.name, *sorted(s.labels.values())): s.value for s in samples}

    def checks(self, path: str) -> tuple[int, dict[str, Any]]:
        status, text = self.get(path)
        return status, {check["name"]: check["state"] for check in json.loads(text)["checks"]}


@pytest.fixture
def asked(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    with operated(database_url, tmp_path) as node:
        made = Asked(node, monkeypatch)
        yield made
        made.close()


def test_what_is_done_is_counted_and_what_waits_is_measured(asked: Asked, tmp_path: Path) -> None:
    node = asked.node
    node.receive(small_ct(tmp_path / "done", slices=8), "CT1")
    (job,) = node.jobs()
    node.complete(job["id"])
    node.send(Sent(0x0000), DeliveryError("no", retry=False, status=0xC000))
    node.receive(small_ct(tmp_path / "waits", slices=8), "CT2")
    node.receive(small_ct(tmp_path / "few", slices=3), "CT2")

    found = asked.metrics()

    assert found["dicom_node_instances_received_total", "CT1"] == 8
    assert found["dicom_node_instances_received_total", "CT2"] == 11
    assert found["dicom_node_events_total", "job completed"] == 1
    assert found["dicom_node_events_total", "series matched no rule"] == 1
    assert found["dicom_node_events_total", "job failed"] == 0
    assert found["dicom_node_jobs_open", "lung", "scheduled"] == 1
    assert found["dicom_node_deliveries_open", "failed", "pacs"] == 1
    assert found["dicom_node_job_step_seconds_count", "infer", "lung"] == 1
    assert found["dicom_node_job_step_seconds_sum", "infer", "lung"] == 1.5
    assert found["dicom_node_job_step_seconds_bucket", "1.0", "infer", "lung"] == 0
    assert found["dicom_node_job_step_seconds_bucket", "2.5", "infer", "lung"] == 1
    assert found["dicom_node_delivery_seconds_count", "pacs"] == 1
    assert 0 < found["dicom_node_queue_oldest_seconds",] < 60
    assert found["dicom_node_database_up",] == 1
    assert found["dicom_node_spool_free_bytes",] > 0
    assert asked.metrics()["dicom_node_events_total", "job completed"] == 1, "nothing is counted twice"


def test_health_says_what_keeps_the_node_from_working(asked: Asked, tmp_path: Path) -> None:
    node = asked.node
    assert asked.get("/ready")[0] == asked.get("/health")[0] == 503, "no receiver listens"
    with socket.create_server(("127.0.0.1", asked.settings.receive.port)):
        assert asked.checks("/ready") == (200, {"disk": "ok", "database": "ok", "receiver": "ok"})
        status, checks = asked.checks("/health")
        assert (status, checks["workers"], checks["deliverers"]) == (503, "down", "down")
        with transaction(node.engine) as tx:
            for role in ("work", "deliver"):
                register_node(tx, f"host/{role}", host="h", role=role, slot="0", pid=1, version="1")
        node.receive(small_ct(tmp_path / "waits", slices=8))
        status, checks = asked.checks("/health")
        assert (status, checks["workers"], checks["queue"]) == (200, "ok", "ok")
        with transaction(node.engine) as tx:
            tx.execute(update(t.job).values(created_at=utc_now() - timedelta(hours=2)))
            tx.execute(update(t.audit_event).values(at=utc_now() - timedelta(hours=2)))
        status, checks = asked.checks("/health")
        assert (status, checks["queue"], checks["audit trail"]) == (200, "degraded", "degraded")
        full = asked.settings.spool.model_copy(update={"reserve_mib": 2**40})
        object.__setattr__(asked.settings, "spool", full)
        status, checks = asked.checks("/ready")
        assert (status, checks["disk"]) == (503, "down")
    assert asked.get("/elsewhere")[0] == 404


def test_a_database_that_is_away_is_told_and_forgiven(
    postgresql: PostgreSQL, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with operated(postgresql_url, tmp_path) as node:
        asked = Asked(node, monkeypatch)
        try:
            postgresql.pause()
            try:
                found = asked.metrics()
                assert asked.checks("/ready")[1]["database"] == "down"
            finally:
                postgresql.resume()
            assert found["dicom_node_database_up",] == 0
            assert ("dicom_node_database_size_bytes",) not in found
            node.receive(small_ct(tmp_path / "ct", slices=8))
            assert asked.metrics()["dicom_node_instances_received_total", "CT1"] == 8
        finally:
            asked.close()


def test_alerts_and_dashboard_ask_for_metrics_that_exist(asked: Asked, tmp_path: Path) -> None:
    node = asked.node
    node.receive(small_ct(tmp_path / "done", slices=8))
    node.complete(node.jobs()[0]["id"])
    node.send(Sent(0x0000), DeliveryError("later", retry=True))
    node.receive(small_ct(tmp_path / "waits", slices=8))
    with transaction(node.engine) as tx:
        register_node(tx, "host/work", host="h", role="work", slot="0", pid=1, version="1")
        tx.execute(t.sweep.insert().values(name="chain", ended_at=utc_now()))
    there = {name for name, *_ in asked.metrics()} | {"dicom_node_gpu_memory_used_bytes"}
    there |= {"dicom_node_gpu_memory_size_bytes", "dicom_node_gpu_utilization_ratio"}
    for file in (DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "grafana" / "dicom-node.json"):
        asked_for = set(re.findall(r"\bdicom_node_\w+", file.read_text()))
        assert asked_for
        assert asked_for - there == set(), file.name
    dashboard = json.loads((DEPLOY / "grafana" / "dicom-node.json").read_text())
    assert len({panel["title"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_what_the_driver_says_of_a_gpu() -> None:
    gpu = parse("0, NVIDIA H100 80GB HBM3, 1024, 81559, 37")
    assert gpu is not None
    assert (gpu.index, gpu.used_bytes, gpu.total_bytes, gpu.utilization) == ("0", 2**30, 81559 * 2**20, 0.37)
    assert parse("0, NVIDIA GB10, [N/A], [N/A], 3") is None
