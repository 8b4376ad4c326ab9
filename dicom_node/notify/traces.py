"""Traces for a collector, over OTLP/HTTP: the spans of what the audit trail says has ended. Off unless it is set.

OpenTelemetry's own packages are an extra, and are imported only where they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

import dicom_node
from dicom_node.db import story
from dicom_node.db.audit import read_told
from dicom_node.db.chain import head
from dicom_node.db.engine import reading, transaction
from dicom_node.db.sweeps import advance, held, note_end, start_at
from dicom_node.notify.spans import TOLD, Span, span_id, spans_of, trace_id
from dicom_node.settings import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SWEEP = "traces"
AT_ONCE = 200
LEASE_S = 120.0
_log = logging.getLogger(__name__)


class Traces:
    """Sends spans to a collector, of what ends after it is first switched on. What cannot be sent waits."""

    def __init__(self, engine: Engine, settings: Trace, node: str, host: str, holder: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource

        self._engine = engine
        self._endpoint = settings.endpoint
        self._holder = holder
        self._exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers={name.strip(): value.strip() for name, _, value in (h.partition(":") for h in settings.headers)},
            timeout=settings.timeout_s,
            certificate_file=str(settings.ca) if settings.ca else None,
        )
        self._resource = Resource(
            {
                "service.name": "dicom-node",
                "service.namespace": node,
                "service.version": dicom_node.__version__,
                "host.name": host,
            }
        )
        with transaction(engine) as tx:
            start_at(tx, SWEEP, head(tx).no)

    def step(self) -> int:
        """Send what has ended since the last step; how many spans that were."""
        done = 0
        with held(self._engine, SWEEP, self._holder, LEASE_S) as position:
            while position is not None:
                with reading(self._engine) as tx:
                    events = read_told(tx, position, AT_ONCE)
                    spans = [span for one in _series_of(tx, events) for span in one]
                if not events or (spans and not self._sent(spans)):
                    break
                position, done = events[-1].chain_no, done + len(spans)
                with transaction(self._engine) as tx:
                    if not advance(tx, SWEEP, self._holder, events[-1].chain_no):
                        break
            if position is not None:
                with transaction(self._engine) as tx:
                    note_end(tx, SWEEP)
        return done

    def _sent(self, spans: Iterable[tuple[int, Span]]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        ready = [_readable(trace, span, self._resource) for trace, span in spans]
        if self._exporter.export(ready) is SpanExportResult.SUCCESS:
            return True
        _log.warning("traces wait for %s", self._endpoint)
        return False


def _series_of(tx: Connection, events: Iterable[Any]) -> Iterable[list[tuple[int, Span]]]:
    """Read each series once, however much of it ended."""
    known: dict[str, story.SeriesRows | None] = {}
    for event in events:
        if event.event not in TOLD or event.series_id is None:
            continue
        if event.series_id not in known:
            known[event.series_id] = story.read_series(tx, event.series_id) if event.is_here else None
        if (rows := known[event.series_id]) is not None:
            yield [(trace_id(event.series_id), span) for span in spans_of(event, rows)]


def _readable(trace: int, span: Span, resource: Any) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(key: str) -> SpanContext:
        return SpanContext(trace, span_id(key), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        name=span.name,
        context=context(span.key),
        parent=context(span.parent) if span.parent else None,
        resource=resource,
        attributes={f"dicom_node.{name}": value for name, value in span.attributes.items()},
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.OK),
        start_time=int(span.started.timestamp() * 1_000_000) * 1000,
        end_time=int(max(span.started, span.ended).timestamp() * 1_000_000) * 1000,
    )
