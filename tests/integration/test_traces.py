"""Traces reach a collector over OTLP/HTTP: one trace for the whole story of a series, with nobody's name in it."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from pydicom import Dataset

from dicom_node import operate
from dicom_node.db import chain
from dicom_node.db.engine import transaction
from dicom_node.domain.delivery import Sent
from dicom_node.errors import DeliveryError
from dicom_node.notify.traces import Traces
from dicom_node.settings import Trace
from tests.ct import small_ct
from tests.integration.operated import Operated, operated

SECRET = "Bearer 4711"


class Collector:
    """An OTLP/HTTP receiver on loopback that decodes what it gets. `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                ours.headers.append({name.lower(): value for name, value in self.headers.items()})
                if ours.status == 200:
                    ours.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(ours.status)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        yield made


def traces(node: Operated, collector: Collector) -> Traces:
    settings = Trace(endpoint=collector.url, headers=(f"authorization: {SECRET}",), timeout_s=30)
    return Traces(node.engine, settings, "ainode", "host", "host/maintain-0/1")


def chained(node: Operated) -> None:
    with transaction(node.engine) as tx:
        chain.extend(tx)


def come(node: Operated, folder: Path) -> dict[str, Any]:
    """A series of a patient who must not be told of; its job."""

    def marked(number: int, ds: Dataset) -> Dataset:
        ds.PatientName, ds.PatientID, ds.AccessionNumber = "MARKED^PATIENT", "MARKED-ID", "MARKED-ACC"
        ds.SeriesDescription = "MARKED SERIES"
        return ds

    node.receive(small_ct(folder, slices=8, change=marked), "CT1")
    (job,) = node.jobs(state="scheduled")
    return job


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_the_whole_story_of_a_series_is_one_trace(node: Operated, collector: Collector, tmp_path: Path) -> None:
    sending = traces(node, collector)
    job = come(node, tmp_path / "ct")
    chained(node)
    assert sending.step() > 0
    node.complete(job["id"])
    node.send(DeliveryError("no answer", retry=True), Sent(0x0000), Sent(0x0000))
    chained(node)
    traces(node, collector).step()  # another process goes on with the same trace
    assert sending.step() == 0, "nothing is sent twice"

    spans = collector.spans()
    assert {span.trace_id for span in spans} == {UUID(job["series_id"]).bytes}
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)

    def path(span: Any) -> str:
        return f"{path(by_id[span.parent_span_id])}/{span.name}" if span.parent_span_id else str(span.name)

    assert sorted(path(span) for span in spans) == [
        "series",
        "series/assemble",
        "series/association",
        "series/association/store",
        "series/job",
        "series/job/attempt",
        "series/job/attempt/infer",
        *(["series/job/deliver"] * 2),
        *(["series/job/deliver/send"] * 3),
        "series/job/queue",
        "series/route",
    ]
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    (infer,) = (span for span in spans if span.name == "infer")
    assert infer.end_time_unix_nano - infer.start_time_unix_nano == 1_500_000_000
    sends = [span.status.code for span in spans if span.name == "send"]
    assert sorted(sends) == [1, 1, 2], "the first try failed"
    (whole,) = (attributes(span) for span in spans if span.name == "job")
    assert (whole["dicom_node.job.id"], whole["dicom_node.model.name"]) == (job["id"], "lung")
    resource = {one.key: one.value.string_value for one in collector.requests[0].resource_spans[0].resource.attributes}
    assert (resource["service.name"], resource["service.namespace"]) == ("dicom-node", "ainode")
    assert {headers["authorization"] for headers in collector.headers} == {SECRET}


def test_a_trace_names_no_patient(node: Operated, collector: Collector, tmp_path: Path) -> None:
    sending = traces(node, collector)
    job = come(node, tmp_path / "ct")
    node.fail(job["id"], "The slices of MARKED^PATIENT are broken.")
    again = come(node, tmp_path / "again")
    with transaction(node.engine) as tx:
        operate.cancel(tx, again["id"], actor="operator MARKED")
    chained(node)
    assert sending.step() > 0
    told = b"".join(request.SerializeToString() for request in collector.requests)
    for hidden in ("MARKED", job["study_instance_uid"], job["series_instance_uid"], "operator"):
        assert hidden.encode() not in told
    states = {attributes(span).get("dicom_node.job.state"): span.status.code for span in collector.spans()}
    assert (states["failed"], states["canceled"]) == (2, 1)


def test_what_a_collector_does_not_take_waits_for_it(node: Operated, collector: Collector, tmp_path: Path) -> None:
    before = come(node, tmp_path / "before")
    node.complete(before["id"])
    chained(node)
    sending = traces(node, collector)
    job = come(node, tmp_path / "ct")
    node.complete(job["id"])
    chained(node)
    collector.status = 400
    assert sending.step() == 0
    assert len(collector.headers) == 1
    collector.status = 200
    assert sending.step() > 0
    assert {span.trace_id for span in collector.spans()} == {UUID(job["series_id"]).bytes}, "not what was before"


def test_without_the_setting_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys, threading, pathlib; from dicom_node.settings import load_settings; from dicom_node import app;"
        "p = pathlib.Path(sys.argv[1]); p.write_text(''); s = load_settings(p, {}); app.upgrade_database(s);"
        "stop = threading.Event(); stop.set(); app.run_role(s, 'maintain', 0, stop);"
        "assert not [m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "settings.toml")], check=True)
